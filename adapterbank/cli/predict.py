"""Commands that are asked about images: predict, route."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from adapterbank.cli import inputs, options, progress, render
from adapterbank.cli.render import Answer, Faint
from adapterbank.errors import ImageError
from adapterbank.records import AUTO, ROUTER, Abstention, Prediction, Route
from adapterbank.text import count, human_seconds, visible

app = typer.Typer()

UNREADABLE = 1  # the exit code where an image could not be read

Result: TypeAlias = Prediction | Abstention | Route | ImageError
BatchSize = Annotated[int, typer.Option(min=1, help="Images in one forward.")]


@app.command("predict")
def predict(
    paths: options.Paths,
    task: Annotated[
        str,
        typer.Option(
            metavar="REF",
            help="dtd, dtd@challenger, dtd@3, dtd@sha256:1f0c…; auto asks the router.",
        ),
    ],
    top_k: Annotated[int, typer.Option(min=1, help="Labels to give with each answer.")] = 5,
    batch_size: BatchSize = 32,
    device: options.Device = "auto",
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Classify images under one task, or each under its own.

    With --task auto the router finds the task of each image, or rejects it as unknown; that is an
    answer too. With --json, one object a line in the order of the images. An image that cannot
    be read is reported by name while the rest go on; the exit code is then 1.
    """
    registry = options.open_registry(bank)
    # A wrong name is refused before torch is imported.
    version = registry.resolve(ROUTER if task == AUTO else task)
    images = inputs.collect(paths, sys.stdin)
    from adapterbank.inference.predictor import Predictor

    predictor = Predictor(registry, device=device)
    begun = time.perf_counter()
    label_width = 20  # nobody knows yet whose labels they will be
    if task != AUTO and not as_json:
        classes = predictor.load(version)[1].config.classes
        label_width = min(max(len(visible(name)) for name in classes), 30)
    stream = predictor.stream(
        [image for image in images if isinstance(image, Path)],
        task=AUTO if task == AUTO else version,  # resolved once: a promotion now changes nothing
        top_k=top_k,
        batch_size=batch_size,
    )
    label = f"Predicting with {version}"
    kinds = _print_answers(images, stream, label, label_width=label_width, as_json=as_json)
    bad, unknown = kinds[ImageError], kinds[Abstention]
    if not as_json:
        took = human_seconds(time.perf_counter() - begun)
        notes = f", {unknown} of no known task" if unknown else ""
        notes += f", {bad} could not be read" if bad else ""
        render.note(f"{count(len(images) - bad, 'image')} with {version} in {took}{notes}")
    if bad:
        raise typer.Exit(UNREADABLE)


@app.command("route")
def route(
    paths: options.Paths,
    top_k: Annotated[int, typer.Option(min=1, help="Tasks to name with each answer.")] = 3,
    batch_size: BatchSize = 32,
    device: options.Device = "auto",
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Find the task of images, without answering them.

    One pass of the backbone, however many tasks there are. p is the share of a task's own images
    that look at least as unusual. Where it is at most the router's alpha (0.05 unless the bank says
    otherwise) the image is rejected as unknown.
    """
    registry = options.open_registry(bank)
    registry.resolve(ROUTER)  # before torch is imported
    images = inputs.collect(paths, sys.stdin)
    from adapterbank.inference.predictor import Predictor

    readable = [image for image in images if isinstance(image, Path)]
    routes = Predictor(registry, device=device).route(readable, top_k=top_k, batch_size=batch_size)
    stream = (result for _, result in routes)
    if _print_answers(images, stream, "Finding tasks", as_json=as_json)[ImageError]:
        raise typer.Exit(UNREADABLE)


def _print_answers(
    images: list[Path | ImageError],
    stream: Iterator[Result],
    label: str,
    *,
    label_width: int = 0,
    as_json: bool,
) -> Counter[type[Result]]:
    """Print answers as they come; what is an error already keeps its place.

    Returns:
        How many there are of each type.
    """
    names = (visible(image) for image in images if isinstance(image, Path))
    image_width = min(max(map(len, names), default=0), 60)
    kinds: Counter[type[Result]] = Counter()
    # Where the answers scroll by in the same terminal, they are the progress.
    with progress.bar(label, quiet=True) as bar:
        for number, image in enumerate(images, start=1):
            result = image if isinstance(image, ImageError) else next(stream)
            kinds[type(result)] += 1
            if isinstance(result, ImageError) and not as_json:
                render.note(result.message)
            else:
                answer = _answer(str(image), result, image_width, label_width)
                render.answer(answer, as_json=as_json, at_once=True)
            if not sys.stdout.isatty():
                bar(number, len(images))
    return kinds


def _answer(image: str, result: Result, image_width: int, label_width: int) -> Answer:
    name = f"{visible(image):<{image_width}}"
    if isinstance(result, ImageError):
        return Answer({"image": result.path, "error": result.reason})
    if isinstance(result, Route):
        return Answer({"image": image, **_route_json(result)}, [_route_text(name, result)])
    if isinstance(result, Abstention):
        content: dict[str, Any] = {
            "image": image,
            "task": None,
            "abstained": True,
            "latency_ms": result.latency_ms,
            "route": _route_json(result.route),
        }
        return Answer(content, [_route_text(name, result.route)])
    content = {**vars(result), "top_k": _shares("label", result.top_k)}
    del content["route"]
    if result.route is not None:
        content["route"] = _route_json(result.route)
    label = result.label if result.route is None else f"{result.task}: {result.label}"
    others = _others(result.top_k[1:])
    text = f"{name}  {visible(label):<{label_width}}  {result.probability:>6.1%}"
    return Answer(content, [Faint(text, others)])


def _route_json(route: Route) -> dict[str, Any]:
    return {**vars(route), "candidates": _shares("task", route.candidates)}


def _shares(noun: str, shares: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{noun: name, "probability": share} for name, share in shares]


def _route_text(name: str, route: Route) -> Faint:
    """Write the task, how unusual the image is for it, and the other tasks."""
    task = route.task or "no known task"
    doubt = "?" if route.outcome == "ambiguous" else ""
    text = f"{name}  {task + doubt:<20}  p {route.p_value:.3f}  lead {route.margin:>6.1%}"
    return Faint(text, _others(route.candidates))


def _others(shares: Sequence[tuple[str, float]]) -> str:
    text = "  ".join(f"{name} {share:.1%}" for name, share in shares)
    return f"   {text}" if text else ""
