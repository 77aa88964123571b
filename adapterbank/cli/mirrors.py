"""Commands on what follows the registry: status, sync, push, pull."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from adapterbank.cli import options, progress, render, summary
from adapterbank.text import count

if TYPE_CHECKING:
    from adapterbank.sync.remote import Transfer
    from adapterbank.sync.status import Discrepancy

app = typer.Typer()

DIFFERENT = 1  # the exit code of a check that failed

Ref = Annotated[
    str | None, typer.Argument(metavar="REF", help="A task or a version; all if left out.")
]


@app.command("status")
def status(bank: options.BankDir = None, *, as_json: options.Json = False) -> None:
    """Name every difference between registry, Git, DVC and MLflow.

    Changes nothing; the exit code is 1 if anything differs.
    """
    registry = options.open_registry(bank)
    with progress.bar("Comparing", quiet=as_json) as shown:
        from adapterbank.sync.status import find_discrepancies

        discrepancies = find_discrepancies(registry, progress=shown)
    if as_json:
        entries = [discrepancy.as_json() for discrepancy in discrepancies]
        render.print_json({"ok": not entries, "discrepancies": entries})
    else:
        _show(discrepancies)
        if not discrepancies:
            render.line("Registry, Git, DVC and MLflow agree.")
    if discrepancies:
        raise typer.Exit(DIFFERENT)


@app.command("sync")
def sync(
    bank: options.BankDir = None,
    *,
    adopt: Annotated[
        bool,
        typer.Option(
            "--adopt", help="First promote what MLflow's aliases mean, where that differs."
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Let MLflow and DVC follow the registry again.

    A deleted MLflow catalogue is rebuilt; its runs are gone. An experiment that was made at another
    place gets another name, so that the next run makes one here. With --adopt an alias that was
    moved in MLflow is promoted instead, by the checks of promote and with its exit codes: 4 for a
    version that is damaged, 5 for an alias that moved meanwhile. It is 1 if anything else could not
    be done; what is left for Git, the remote and other clones is only told.
    """
    opened = options.open_bank(bank)
    with progress.spinner("Comparing and mending", quiet=as_json):
        from adapterbank.sync.repair import sync as run_sync

        report = run_sync(opened, adopt=adopt)
    if as_json:
        left = [discrepancy.as_json() for discrepancy in report.left]
        content = {"ok": report.complete, "done": report.done, "failed": report.failed}
        render.print_json({**content, "left": left})
    else:
        for text in report.done:
            render.line(text)
        if not report.done:
            render.line("Nothing was mended.")
        for text in report.failed:
            render.note(text)
        _show(report.left)
    if not report.complete:
        raise typer.Exit(report.exit_code)


@app.command("push")
def push(ref: Ref = None, bank: options.BankDir = None, *, as_json: options.Json = False) -> None:
    """Copy versions to DVC's default remote.

    The backbone goes with them. What `dvc push` carries besides, data and intermediate results,
    stays where it is.
    """
    registry = options.open_registry(bank)
    with progress.spinner("Pushing", quiet=as_json):
        from adapterbank.sync.remote import push as run_push

        moved = run_push(registry, ref)
    _report(moved, "were new to the remote", as_json=as_json)


@app.command("pull")
def pull(ref: Ref = None, bank: options.BankDir = None, *, as_json: options.Json = False) -> None:
    """Bring versions from DVC's default remote into the registry.

    Every byte is checked before it is put into the registry. Alias files come by `git pull`.
    """
    registry = options.open_registry(bank)
    with progress.spinner("Pulling", quiet=as_json):
        from adapterbank.sync.remote import pull as run_pull

        moved = run_pull(registry, ref)
    _report(moved, "were fetched", as_json=as_json)


def _report(moved: Transfer, what: str, *, as_json: bool) -> None:
    if as_json:
        names = {"versions": moved.versions, "new": moved.new}
        render.print_json(
            {
                key: [summary.version_json(version) for version in value]
                for key, value in names.items()
            }
        )
        return
    versions = count(len(moved.versions), "version")
    render.line(f"{versions}, all whole; {len(moved.new)} {what}")


def _show(discrepancies: tuple[Discrepancy, ...]) -> None:
    for discrepancy in discrepancies:
        render.line(f"{discrepancy.place}: {discrepancy.message}")
        if discrepancy.fix:
            render.line(f"  To mend it: {discrepancy.fix}")
