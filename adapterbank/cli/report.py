"""The command that shows a bank on one page: report."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from adapterbank.cli import options, progress, render
from adapterbank.cli.render import Answer
from adapterbank.text import count, human_bytes

app = typer.Typer()

PAGE = "reports/bank.html"


@app.command("report")
def report(
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"Where to write; {PAGE} of the bank by default."),
    ] = None,
    device: options.BankDevice = None,
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Write one HTML page about the whole bank.

    Tasks, accuracy after every step, router, storage and verdicts. The page is one file, without
    scripts, and asks no network for anything; the same bank gives the same bytes.
    """
    opened = options.open_bank(bank)
    with progress.bar("Looking at the test images", quiet=as_json) as bar:
        from adapterbank.backbones.loading import pick_device
        from adapterbank.report.overview import collect

        place = pick_device(device or opened.config.active.train.device)
        overview = collect(opened, bar, device=place)
    from adapterbank import durable
    from adapterbank.report.page import render_page

    path = (opened.root / PAGE if out is None else out).absolute()
    page = render_page(overview)
    with durable.writable(path.parent):
        durable.make_directory(path.parent)
        durable.replace_file(path, page)
    digest = hashlib.sha256(page).hexdigest()
    answer = Answer(
        {"report": path, "sha256": digest, **overview.as_json()},
        [f"{path}: {count(len(overview.tasks), 'task')}, {human_bytes(len(page))}"],
    )
    render.answer(answer, as_json=as_json)
    for missing in (*overview.problems, overview.matrix.missing, overview.router.missing):
        if missing is not None and not as_json:
            render.note(f"The page says so too: {missing}")
