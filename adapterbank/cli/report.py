"""The command that shows a bank on one page: report."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from adapterbank.cli import options, progress, render
from adapterbank.text import count, human_bytes

app = typer.Typer()

PAGE = "reports/bank.html"


@app.command("report")
def report(
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"Where to write; {PAGE} of the bank by default."),
    ] = None,
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Write one HTML page about the whole bank.

    Tasks, accuracy after every step, router, storage and verdicts. The page is one file, without
    scripts, and asks no network for anything; the same bank gives the same bytes.
    """
    opened = options.open_bank(bank)
    with progress.bar("Looking at the test images", quiet=as_json) as shown:
        from adapterbank.report.overview import collect

        found = collect(opened, shown)
    from adapterbank import durable
    from adapterbank.report.page import render_page

    path = (opened.root / PAGE if out is None else out).absolute()
    page = render_page(found)
    with durable.writable(path.parent):
        durable.make_directory(path.parent)
        durable.replace_file(path, page)
    if as_json:
        digest = hashlib.sha256(page).hexdigest()
        render.print_json({"report": str(path), "sha256": digest, **found.as_json()})
    else:
        tasks = count(len(found.tasks), "task")
        render.line(f"{path}: {tasks}, {human_bytes(len(page))}")
    for missing in (*found.problems, found.matrix.missing, found.router.missing):
        if missing is not None and not as_json:
            render.note(f"The page says so too: {missing}")
