"""Commands about the router: show, rebuild."""

from __future__ import annotations

from typing import Annotated

import typer

from adapterbank.cli import options, progress, render
from adapterbank.cli.render import Answer, Table
from adapterbank.records import ROUTER
from adapterbank.text import count

app = typer.Typer(no_args_is_help=True, help="Look at the router, or build it anew.")


@app.command("rebuild")
def rebuild(bank: options.BankDir = None, *, as_json: options.Json = False) -> None:
    """Build the router of all champions, as release does.

    The same champions give the same version. One that was rolled back is served again.
    """
    opened = options.open_bank(bank)
    with progress.spinner("Building the router", quiet=as_json):
        from adapterbank.inference.router_versions import rebuild_router

        built = rebuild_router(
            opened.registry, opened.config.router, reason="rebuilt by hand", forward=True
        )
    version = built.version
    text = "No champion has a routing record. Next: dvc repro"
    if version is not None:
        news = "is new" if built.published else "is what it was"
        text = f"{version} {news}: {count(len(built.tasks), 'task')}, sha256:{version.digest}"
    content = {
        "router": None if version is None else render.version_json(version),
        "published": built.published,
        "tasks": built.tasks,
        "blocks": built.blocks,
        "left_out": built.left_out,
        "narrowing": built.narrowing,
        "twins": built.twins,
    }
    render.answer(Answer(content, [text], built.notes), as_json=as_json)


@app.command("show")
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
    sizes = {task: (len(part.counts), len(part.calibration)) for task, part in router.parts.items()}
    content = {
        **render.version_json(version),
        "blocks": router.blocks,
        "mode": router.mode,
        "alpha": router.alpha,
        "margin": router.margin,
        "cap": router.cap,
        "reference": router.reference or None,
        "aside": router.aside or None,
        "temperature": router.temperature,
        "tasks": {
            task: {"classes": classes, "calibration": images}
            for task, (classes, images) in sizes.items()
        },
    }
    rows = [(task, str(classes), str(images)) for task, (classes, images) in sizes.items()]
    text: list[str | Table] = [
        (
            f"{version} sha256:{version.digest}, {router.mode}, features after block"
            f" {listed(router.blocks)}, alpha {router.alpha}"
        ),
        Table(("task", ">classes", ">calibration images"), rows),
    ]
    render.answer(Answer(content, text), as_json=as_json)
