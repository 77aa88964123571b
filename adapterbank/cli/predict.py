"""The command that the others are for."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from adapterbank.cli import inputs, options, progress, render, summary
from adapterbank.errors import ImageError
from adapterbank.records import AUTO, ROUTER, Abstention, Prediction
from adapterbank.text import count, human_seconds

if TYPE_CHECKING:
    from adapterbank.inference.predictor import Predictor
    from adapterbank.registry.versions import Version

app = typer.Typer()

CHECK_FAILED = 1

Answer: TypeAlias = Prediction | Abstention | ImageError


@app.command("predict")
def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Files, folders (with all below), quoted patterns, or - for paths from standard"
            " input, one a line.",
        ),
    ],
    task: Annotated[
        str,
        typer.Option(
            metavar="REF",
            help="dtd, dtd@challenger, dtd@3, dtd@sha256:1f0c…; auto asks the router.",
        ),
    ],
    top_k: Annotated[int, typer.Option(min=1, help="Labels to give with each answer.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one forward.")] = 32,
    device: options.AutoDevice = "auto",
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Classify images under one task, or each under its own.

    With --task auto the router finds the task of each image, or says that it is of none; that is
    an answer too. With --json, one object a line in the order of the images. An image that cannot
    be read is reported by name while the rest go on; the exit code is then 1.
    """
    registry = options.open_registry(bank)
    # A wrong name is told at once, before torch is imported.
    version = registry.resolve(ROUTER if task == AUTO else task)
    images = inputs.collect(paths, sys.stdin)
    from adapterbank.inference.predictor import Predictor

    predictor = Predictor(registry, device=device)
    asked = None if task == AUTO else version  # resolved once: a promotion now changes nothing
    begun = time.perf_counter()
    failures, strangers = 0, 0
    # Where the answers scroll by in the same terminal, they are the progress.
    with progress.bar(f"Predicting with {version}", quiet=True) as shown:
        widths = (0, 0) if as_json else _widths(predictor, asked, images)
        answers = _answers(predictor, asked, images, top_k=top_k, batch_size=batch_size)
        for done, answer in enumerate(answers, start=1):
            failures += isinstance(answer, ImageError)
            strangers += isinstance(answer, Abstention)
            _show(answer, widths, as_json=as_json)
            if not sys.stdout.isatty():
                shown(done, len(images))
    if not as_json:
        good = len(images) - failures
        took = human_seconds(time.perf_counter() - begun)
        bad = f", {failures} could not be read" if failures else ""
        strange = f", {strangers} of no known task" if strangers else ""
        render.note(f"{count(good, 'image')} with {version} in {took}{strange}{bad}")
    if failures:
        raise typer.Exit(CHECK_FAILED)


def _answers(
    predictor: Predictor,
    version: Version | None,
    images: list[Path | ImageError],
    *,
    top_k: int,
    batch_size: int,
) -> Iterator[Answer]:
    """Answer in order, by the router for None; what is an error already keeps its place."""
    paths = [image for image in images if isinstance(image, Path)]
    task = AUTO if version is None else version
    stream = predictor.stream(paths, task=task, top_k=top_k, batch_size=batch_size)
    for image in images:
        yield image if isinstance(image, ImageError) else next(stream)


def _widths(
    predictor: Predictor, version: Version | None, images: list[Path | ImageError]
) -> tuple[int, int]:
    """Measure columns of names and labels, both within reason."""
    longest = max(len(str(image)) for image in images if isinstance(image, Path))
    if version is None:  # nobody knows yet whose labels they will be
        return min(longest, 60), 20
    _, loaded = predictor.load(version)
    return min(longest, 60), min(max(map(len, loaded.config.classes)), 30)


def _show(answer: Answer, widths: tuple[int, int], *, as_json: bool) -> None:
    if isinstance(answer, ImageError):
        if as_json:
            render.print_json({"image": answer.path, "error": answer.reason}, at_once=True)
        else:
            render.note(answer.message)
        return
    if isinstance(answer, Abstention):
        _show_abstention(answer, widths[0], as_json=as_json)
        return
    if not as_json:
        image_width, label_width = widths
        text = render.prediction(answer, image_width=image_width, label_width=label_width)
        render.line(text, at_once=True)
        return
    top = [{"label": label, "probability": share} for label, share in answer.top_k]
    render.print_json(
        {
            "image": answer.image,
            "task": answer.task,
            "version": answer.version,
            "digest": answer.digest,
            "label": answer.label,
            "probability": answer.probability,
            "top_k": top,
            "latency_ms": answer.latency_ms,
            **({} if answer.route is None else {"route": summary.route_json(answer.route)}),
        },
        at_once=True,
    )


def _show_abstention(answer: Abstention, image_width: int, *, as_json: bool) -> None:
    if as_json:
        render.print_json(
            {
                "image": answer.image,
                "task": None,
                "abstained": True,
                "latency_ms": answer.latency_ms,
                "route": summary.route_json(answer.route),
            },
            at_once=True,
        )
    else:
        text = render.route(answer.image, answer.route, image_width=image_width)
        render.line(text, at_once=True)
