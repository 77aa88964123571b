"""The command that asks whether a task's images have changed: drift."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterbank.cli import inputs, options, progress, render
from adapterbank.errors import ImageError, InputError
from adapterbank.records import ROUTER
from adapterbank.text import count

if TYPE_CHECKING:
    from adapterbank.drift.measure import Drift

app = typer.Typer()

UNREADABLE = 1  # as predict has it
DRIFTED = 6


@app.command("drift")
def drift(
    task: Annotated[str, typer.Argument(metavar="TASK", help="dtd, or a version: dtd@3.")],
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="As of predict.")],
    window: Annotated[
        int, typer.Option(min=20, help="Images judged together; what is left over is not judged.")
    ] = 200,
    device: options.Device = None,
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

    Of each window of images: whether their frozen features, their familiarity and the confidence
    of the answers are those of the task's held-out images. Two windows in a row must have moved
    before there is an alarm; of unchanged windows at most one in a hundred looks as if it had.
    Changes nothing. The exit code is 0 for the advice none, 6 for any
    other, and 1 where the advice is none but an image could not be read.
    """
    opened = options.open_bank(bank)
    version = opened.registry.resolve(task)
    if version.task == ROUTER:
        raise InputError(f"{version} is the router, not a task", fix="adapterbank list")
    found = inputs.collect(paths, sys.stdin)
    images = [image for image in found if isinstance(image, Path)]
    if shuffle:
        random.Random(0).shuffle(images)  # noqa: S311  # no secret
    from adapterbank.drift.measure import measure_drift
    from adapterbank.drift.windows import Settings

    settings = Settings(window=window)
    with progress.bar(f"Comparing with {version}", quiet=as_json) as shown:
        pinned = f"{version.task}@sha256:{version.digest}"
        report = measure_drift(
            opened,
            pinned,
            images,
            settings=settings,
            device=device or opened.config.device,
            progress=shown,
        )
    nowhere = tuple(image for image in found if isinstance(image, ImageError))
    _tell(report, nowhere, as_json=as_json)
    if not shuffle and len({image.parent for image in images}) > 1:
        render.note("Images were taken folder by folder; --shuffle mixes them")
    if report.advice.action != "none":
        raise typer.Exit(DRIFTED)
    if report.unreadable or nowhere:
        raise typer.Exit(UNREADABLE)


def _tell(report: Drift, nowhere: tuple[ImageError, ...], *, as_json: bool) -> None:
    bad = (*nowhere, *report.unreadable)
    if as_json:
        content = report.as_json()
        content["unreadable"] = [{"image": one.path, "error": one.reason} for one in bad]
        render.print_json(content)
        return
    for error in bad:
        render.note(error.message)
    render.table(
        ("images", ">features", ">p", ">familiarity", ">p", ">less sure by", ">p",
         ">of no task", ">of others", "moved"),
        _rows(report),
    )  # fmt: skip
    if report.left_over:
        render.line(f"Not judged: the last {count(report.left_over, 'image')}")
    render.line(f"{report.version}: {report.sentence}")


def _rows(report: Drift) -> list[tuple[str, ...]]:
    rows = []
    for window in report.windows:
        cells = []
        for name in ("features", "familiarity", "confidence"):
            one = window.findings.get(name)
            cells += ["–", "–"] if one is None else [f"{one.effect:.2f}", f"{one.adjusted:.3f}"]
        which = [name for name, one in window.findings.items() if one.moved]
        rows.append(
            (
                f"{window.first + 1}–{window.first + window.images}",
                *cells,
                f"{window.abstained:.0%}",
                f"{sum(window.elsewhere.values()):.0%}",
                ", ".join(which) or "no",
            )
        )
    return rows
