"""Commands about the router: route, router show, router rebuild."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from adapterbank.cli import inputs, options, progress, render, summary
from adapterbank.errors import ImageError
from adapterbank.records import ROUTER
from adapterbank.text import count

app = typer.Typer()
routers = typer.Typer(no_args_is_help=True, help="Look at the router, or build it anew.")

CHECK_FAILED = 1


@app.command("route")
def route(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="As of predict.")],
    top_k: Annotated[int, typer.Option(min=1, help="Tasks to name with each answer.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one forward.")] = 32,
    device: options.AutoDevice = "auto",
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Find the task of images, without answering them.

    One pass of the backbone, however many tasks there are. p is the share of a task's own images
    that look as unusual for it; where it is at most the router's alpha (0.05 unless the bank says
    otherwise) the image is of no known task.
    """
    registry = options.open_registry(bank)
    registry.resolve(ROUTER)  # before torch is imported
    images = inputs.collect(paths, sys.stdin)
    width = min(max(len(str(image)) for image in images if isinstance(image, Path)), 60)
    from adapterbank.inference.predictor import Predictor

    predictor = Predictor(registry, device=device)
    good = [image for image in images if isinstance(image, Path)]
    routes = predictor.route(good, top_k=top_k, batch_size=batch_size)
    failures = 0
    for image in images:
        name, found = (image.path, image) if isinstance(image, ImageError) else next(routes)
        failures += isinstance(found, ImageError)
        if isinstance(found, ImageError):
            if as_json:
                render.print_json({"image": found.path, "error": found.reason}, at_once=True)
            else:
                render.note(found.message)
        elif as_json:
            render.print_json({"image": name, **summary.route_json(found)}, at_once=True)
        else:
            render.line(render.route(name, found, image_width=width), at_once=True)
    if failures:
        raise typer.Exit(CHECK_FAILED)


@routers.command("rebuild")
def rebuild(bank: options.BankDir = None, *, as_json: options.Json = False) -> None:
    """Build the router of all champions, as release does.

    The same champions give the same version. One that was rolled back is served again.
    """
    opened = options.open_bank(bank)
    with progress.spinner("Building the router", quiet=as_json):
        from adapterbank.inference.router_versions import rebuild_router

        done = rebuild_router(
            opened.registry, opened.config.router, reason="rebuilt by hand", forward=True
        )
    if as_json:
        version = None if done.version is None else summary.version_json(done.version)
        render.print_json(
            {"router": version, "published": done.published, "tasks": list(done.tasks),
             "blocks": list(done.blocks), "left_out": dict(done.left_out),
             "narrowing": list(done.narrowing), "twins": [list(pair) for pair in done.twins]}
        )  # fmt: skip
        return
    if done.version is None:
        render.line("No champion has a routing record. Next: dvc repro")
    else:
        news = "is new" if done.published else "is what it was"
        known = count(len(done.tasks), "task")
        render.line(f"{done.version} {news}: {known}, sha256:{done.version.digest}")
    for sentence in done.notes:
        render.note(sentence)


@routers.command("show")
def show(
    ref: Annotated[
        str, typer.Argument(metavar="REF", help="router@2, router@sha256:1f0c…")
    ] = ROUTER,
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Show the router that is served, or another version of it."""
    registry = options.open_registry(bank)
    registry.resolve(ref)
    from adapterbank.inference.routing import load_router
    from adapterbank.routing.router import listed

    version, router = load_router(registry, ref)
    if as_json:
        tasks = {
            task: {"classes": len(part.counts), "calibration": len(part.calibration)}
            for task, part in router.parts.items()
        }
        render.print_json(
            {
                **summary.version_json(version),
                "blocks": list(router.blocks),
                "mode": router.mode,
                "alpha": router.alpha,
                "margin": router.margin,
                "cap": router.cap,
                "reference": router.reference or None,
                "aside": router.aside or None,
                "temperature": router.temperature,
                "tasks": tasks,
            }
        )
        return
    render.line(
        f"{version} sha256:{version.digest}, {router.mode}, features after block"
        f" {listed(router.blocks)}, alpha {router.alpha}"
    )
    rows = [
        (task, str(len(part.counts)), str(len(part.calibration)))
        for task, part in router.parts.items()
    ]
    render.table(("task", ">classes", ">calibration images"), rows)
