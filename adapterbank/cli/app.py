"""The commands put together."""

from __future__ import annotations

from typing import Annotated

import typer

from adapterbank import __version__
from adapterbank.cli import (
    audit,
    backbone,
    bank,
    demo,
    drift,
    learn,
    mirrors,
    pipeline,
    predict,
    render,
    report,
    router,
    stage,
    tasks,
    tune,
    versions,
)

app = typer.Typer(
    name="adapterbank",
    help="One frozen vision backbone, many small task adapters: train, version and use them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # docstrings are folded as paragraphs
    pretty_exceptions_enable=False,  # __main__ reports errors
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order of a first day: make a bank, fill it, look at it, use it.
for part in (
    bank.setup, tune.app, pipeline.app, learn.app, versions.app, bank.views, predict.app,
    drift.app, demo.app, stage.app, mirrors.app, report.app, audit.app,
):  # fmt: skip
    app.add_typer(part)
for group, name in ((tasks, "task"), (backbone, "backbone"), (router, "router")):
    app.add_typer(group.app, name=name)


def _show_version(value: bool) -> None:  # noqa: FBT001  # typer calls it so
    if value:
        render.line(f"adapterbank {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[  # noqa: FBT002  # its callback does the work
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """Stand for the program itself."""
