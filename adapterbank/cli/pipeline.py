"""Commands that do the work of the pipeline by hand: train, evaluate."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from adapterbank.cli import _options, _progress, _render, _summary, _work

if TYPE_CHECKING:
    from adapterbank.continual.measure import Measurement

__all__ = ["app"]

app = typer.Typer()


class SplitName(StrEnum):
    """What a version can be measured on."""

    VAL = "val"
    TEST = "test"


@app.command("train")
def train(
    task: Annotated[str, typer.Argument(metavar="TASK")],
    bank: _options.BankDir = None,
    *,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Read the images again, though they are prepared.")
    ] = False,
    as_json: _options.Json = False,
) -> None:
    """Train a task's adapter by hand.

    `dvc repro` does this, and everything before and after it, for all tasks that need it.
    """
    opened = _options.open_bank(bank)
    opened.config.task(task)
    _work.make_ready(opened, task, again=prepare, quiet=as_json)
    result = _work.train(opened, task, quiet=as_json)
    if as_json:
        _render.print_json(result)
        return
    _work.print_trained(result)
    _render.line(f"Next: adapterbank evaluate {task}, or dvc repro, which also releases it")


@app.command("evaluate")
def evaluate(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="REF|TASK", help="A version (dtd@2, dtd@champion), or a task just trained."
        ),
    ],
    split: Annotated[SplitName, typer.Option(help="Of a version's measurement.")] = SplitName.TEST,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
    bank: _options.BankDir = None,
    *,
    as_json: _options.Json = False,
) -> None:
    """Measure a version on its task's test images.

    A bare TASK means the adapter that waits in work/TASK, which becomes a version this way, and
    the champion where none waits.
    """
    _options.check_device(device)
    opened = _options.open_bank(bank)
    if "@" not in ref and opened.trained(ref).is_dir():
        metrics = _work.evaluate(opened, ref, quiet=as_json)
        directory = opened.version(ref)
        if as_json:
            _render.print_json({"task": ref, "directory": str(directory), "metrics": metrics})
            return
        _work.print_metrics(ref, metrics)
        _render.line(
            f"Next: adapterbank register {directory}, or dvc repro, which also releases it"
        )
        return
    version = opened.registry.resolve(ref)
    if version.task in opened.config.tasks:
        _work.make_ready(opened, version.task, again=False, quiet=as_json)
    with _progress.bar(f"Measuring {version}", quiet=as_json) as shown:
        from adapterbank.continual.measure import measure

        found = measure(opened, ref, split=split.value, device=device, progress=shown)
    _report_measurement(found, as_json=as_json)


def _report_measurement(found: Measurement, *, as_json: bool) -> None:
    version, score = found.version, found.score
    if as_json:
        _render.print_json(
            {
                **_summary.version_json(version),
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
    share = _render.percent(score.correct, score.total)
    _render.line(
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
        _render.line(f"  {-count} × {actual} taken for {given}")
    if not found.same_data:
        _render.line("The prepared data is not the data this version was trained on.")
