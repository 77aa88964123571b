"""The command that asks whether a task's images have changed: drift."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterbank.cli import inputs, options, progress, render
from adapterbank.cli.render import Answer, Table
from adapterbank.errors import ImageError, InputError
from adapterbank.records import ROUTER
from adapterbank.text import count

if TYPE_CHECKING:
    from adapterbank.drift.windows import Window

app = typer.Typer()

UNREADABLE = 1  # as predict has it
DRIFTED = 6


@app.command("drift")
def drift(
    task: Annotated[str, typer.Argument(metavar="TASK", help="dtd, or a version: dtd@3.")],
    paths: options.Paths,
    window: Annotated[
        int, typer.Option(min=20, help="Images judged together; what is left over is not judged.")
    ] = 200,
    device: options.BankDevice = None,
    bank: options.BankDir = None,
    *,
    shuffle: Annotated[
        bool,
        typer.Option(
            "--shuffle", help="Mix the images first: for folders sorted by class, not by time."
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Compare new images of a task with those it was trained on.

    Each window of images is compared with the task's held-out images by frozen features, by
    familiarity and by the confidence of the answers. Two changed windows in a row raise an alarm;
    of unchanged windows at most one in a hundred looks changed. Writes nothing. The exit code is 0
    for the advice none, 6 for any other, and 1 where the advice is none but an image could not be
    read.
    """
    opened = options.open_bank(bank)
    version = opened.registry.resolve(task)
    if version.task == ROUTER:
        raise InputError(f"{version} is the router, not a task", fix="adapterbank list")
    named = inputs.collect(paths, sys.stdin, missing=False)
    images = [image for image in named if isinstance(image, Path)]
    if shuffle:
        random.Random(0).shuffle(images)  # noqa: S311  # no secret
    from adapterbank.drift.measure import measure_drift
    from adapterbank.drift.windows import Settings

    settings = Settings(window=window)
    with progress.bar(f"Comparing with {version}", quiet=as_json) as bar:
        pinned = f"{version.task}@sha256:{version.digest}"
        report = measure_drift(
            opened,
            pinned,
            images,
            settings=settings,
            device=device or opened.config.device,
            progress=bar,
        )
    nowhere = [image for image in named if isinstance(image, ImageError)]
    bad = (*nowhere, *report.unreadable)
    if not as_json:
        for error in bad:
            render.note(error.message)
    mixed = shuffle or len({image.parent for image in images}) <= 1
    left = report.left_over
    answer = Answer(
        {**report.as_json(), "unreadable": [{"image": e.path, "error": e.reason} for e in bad]},
        [
            Table(
                ("images", ">features", ">p", ">familiarity", ">p", ">less sure by", ">p",
                 ">of no task", ">of others", "moved"),
                [_row(window) for window in report.windows],
            ),
            *([f"Not judged: the last {count(left, 'image')}"] if left else []),
            f"{report.version}: {report.sentence}",
        ],
        [] if mixed else ["Images were taken folder by folder; --shuffle mixes them"],
        DRIFTED if report.advice.action != "none" else UNREADABLE if bad else 0,
    )  # fmt: skip
    render.answer(answer, as_json=as_json)


def _row(window: Window) -> tuple[str, ...]:
    cells = []
    for name in ("features", "familiarity", "confidence"):
        finding = window.findings.get(name)
        cells += (
            ["–", "–"] if finding is None else [f"{finding.effect:.2f}", f"{finding.adjusted:.3f}"]
        )
    return (
        f"{window.first + 1}–{window.first + window.images}",
        *cells,
        f"{window.abstained:.0%}",
        f"{sum(window.elsewhere.values()):.0%}",
        ", ".join(name for name, finding in window.findings.items() if finding.moved) or "no",
    )
