"""Commands that do the work of the pipeline by hand: train, evaluate."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from adapterbank.cli import options, progress, render, summary, work
from adapterbank.errors import InputError
from adapterbank.text import percent

if TYPE_CHECKING:
    from adapterbank.bank.bank import Bank
    from adapterbank.bank.measure import Measurement

app = typer.Typer()


class SplitName(StrEnum):
    """What a version can be measured on."""

    VAL = "val"
    TEST = "test"


@app.command("train")
def train(
    task: Annotated[str, typer.Argument(metavar="TASK")],
    bank: options.BankDir = None,
    *,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Read the images again, though they are prepared.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train a task's adapter by hand.

    `dvc repro` does this, and everything before and after it, for all tasks that need it.
    """
    opened = options.open_bank(bank)
    opened.config.task(task)
    work.make_ready(opened, task, again=prepare, quiet=as_json)
    result = work.train(opened, task, quiet=as_json)
    if as_json:
        render.print_json(result)
        return
    work.print_trained(result)
    render.line(
        f"Next: adapterbank evaluate {task} --trained, or dvc repro, which also releases it"
    )


@app.command("evaluate")
def evaluate(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="REF", help="dtd (its champion), dtd@2, …; with --trained a task's name."
        ),
    ],
    split: Annotated[
        SplitName | None, typer.Option(help="What to measure on; test by default.")
    ] = None,
    device: options.Device = None,
    bank: options.BankDir = None,
    *,
    trained: Annotated[
        bool,
        typer.Option("--trained", help="Judge what train left in work/TASK, and complete it."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Measure a version on its task's test images.

    With --trained, the adapter that waits in work/TASK/trained is measured on validation and test
    images instead, and work/TASK/version becomes the folder of a version.
    """
    opened = options.open_bank(bank)
    if trained:
        if split is not None or device is not None:
            raise InputError(
                "--trained takes no --split and no --device: a version states both splits, and"
                " train.device of the task says where"
            )
        _complete(opened, ref, as_json=as_json)
        return
    version = opened.registry.resolve(ref)
    from adapterbank.backbones.loading import pick_device

    pick_device(device or opened.config.device)  # a wrong name is told before any image is read
    if version.task in opened.config.tasks:
        work.make_ready(opened, version.task, again=False, quiet=as_json)
    with progress.bar(f"Measuring {version}", quiet=as_json) as shown:
        from adapterbank.bank.measure import measure

        found = measure(
            opened,
            ref,
            split=(split or SplitName.TEST).value,
            device=device,
            progress=shown,
        )
    _report_measurement(found, as_json=as_json)


def _complete(bank: Bank, task: str, *, as_json: bool) -> None:
    """Judge the adapter in ``work/<task>/trained`` and complete the files of its version."""
    bank.config.task(task)
    metrics = work.evaluate(bank, task, quiet=as_json)
    directory = bank.version(task)
    if as_json:
        render.print_json({"task": task, "directory": str(directory), "metrics": metrics})
        return
    work.print_metrics(task, metrics)
    render.line(f"Next: adapterbank register {directory}, or dvc repro, which also releases it")


def _report_measurement(found: Measurement, *, as_json: bool) -> None:
    version, score = found.version, found.score
    if as_json:
        render.print_json(
            {
                **summary.version_json(version),
                "split": found.split,
                "correct": score.correct,
                "total": score.total,
                "accuracy": score.accuracy,
                "loss": found.loss,
                "classes": list(found.classes),
                "confusion": found.confusion,
                "same_data": found.same_data,
            }
        )
        return
    share = percent(score.correct, score.total)
    render.line(
        f"{version} on {found.split}: {share} ({score.correct} of {score.total}),"
        f" loss {found.loss:.4f}"
    )
    mistakes = sorted(
        (
            (-count, found.classes[actual], found.classes[given])
            for actual, row in enumerate(found.confusion)
            for given, count in enumerate(row)
            if count and actual != given
        )
    )
    for count, actual, given in mistakes[:5]:
        render.line(f"  {-count} × {actual} taken for {given}")
    if not found.same_data:
        render.line("The prepared data is not the data this version was trained on.")
