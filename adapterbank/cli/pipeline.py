"""Commands that do the work of the pipeline by hand: train, evaluate."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from adapterbank.cli import options, progress, render, stage
from adapterbank.cli.render import Answer
from adapterbank.errors import InputError

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
    stage.make_ready(opened, task, again=prepare, quiet=as_json)
    answer = stage.train(opened, task, quiet=as_json)
    following = f"Next: adapterbank evaluate {task} --trained, or dvc repro, which also releases it"
    render.answer(replace(answer, text=[*answer.text, following]), as_json=as_json)


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
    device: options.BankDevice = None,
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
        render.answer(_complete(opened, ref, quiet=as_json), as_json=as_json)
        return
    version = opened.registry.resolve(ref)
    from adapterbank.backbones.loading import pick_device

    pick_device(device or opened.config.device)  # a wrong name is refused before any image is read
    if version.task in opened.config.tasks:
        stage.make_ready(opened, version.task, quiet=as_json)
    with progress.bar(f"Measuring {version}", quiet=as_json) as bar:
        from adapterbank.bank.measure import measure

        part = (split or SplitName.TEST).value
        measurement = measure(opened, ref, split=part, device=device, progress=bar)
    render.answer(_measured(measurement), as_json=as_json)


def _complete(bank: Bank, task: str, *, quiet: bool) -> Answer:
    """Judge the adapter in ``work/<task>/trained`` and complete the files of its version."""
    bank.config.task(task)
    answer = stage.evaluate(bank, task, quiet=quiet)
    directory = bank.version(task)
    following = f"Next: adapterbank register {directory}, or dvc repro, which also releases it"
    content = {"task": task, "directory": directory, "metrics": answer.content["metrics"]}
    return Answer(content, [*answer.text, following])


def _measured(measurement: Measurement) -> Answer:
    version, score, classes = measurement.version, measurement.score, measurement.classes
    content = {
        **render.version_json(version),
        "split": measurement.split,
        "correct": score.correct,
        "total": score.total,
        "accuracy": score.accuracy,
        "loss": measurement.loss,
        "classes": classes,
        "confusion": measurement.confusion,
        "same_data": measurement.same_data,
    }
    mistakes = sorted(
        (-images, classes[actual], classes[given])
        for actual, row in enumerate(measurement.confusion)
        for given, images in enumerate(row)
        if images and actual != given
    )
    text = [
        (
            f"{version} on {measurement.split}: {render.share(score)}"
            f" ({score.correct} of {score.total}), loss {measurement.loss:.4f}"
        ),
        *(f"  {-images} × {actual} taken for {given}" for images, actual, given in mistakes[:5]),
    ]
    if not measurement.same_data:
        text.append("The prepared data is not the data this version was trained on.")
    return Answer(content, text)
