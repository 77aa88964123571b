"""Commands on what follows the registry: status, sync, push, pull."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterbank.cli import options, progress, render
from adapterbank.cli.render import Answer
from adapterbank.records import Side
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
    with progress.bar("Comparing", quiet=as_json) as bar:
        from adapterbank.sync.status import find_discrepancies

        discrepancies = find_discrepancies(registry, progress=bar)
    answer = Answer(
        {"ok": not discrepancies, "discrepancies": [item.as_json() for item in discrepancies]},
        _lines(discrepancies) or ["Registry, Git, DVC and MLflow agree."],
        exit_code=DIFFERENT if discrepancies else 0,
    )
    render.answer(answer, as_json=as_json)


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
    be done; what is left for Git, the remote and other clones is only listed.
    """
    opened = options.open_bank(bank)
    with progress.spinner("Comparing and mending", quiet=as_json):
        from adapterbank.sync.repair import sync as run_sync

        report = run_sync(opened, adopt=adopt)
    if not as_json:
        for problem in report.failed:
            render.note(problem)
    content = {
        "ok": report.complete,
        "done": report.done,
        "failed": report.failed,
        "left": [item.as_json() for item in report.left],
    }
    text = [*(report.done or ["Nothing was mended."]), *_lines(report.left)]
    code = 0 if report.complete else report.exit_code
    render.answer(Answer(content, text, exit_code=code), as_json=as_json)


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
    render.answer(_answer(moved, "were new to the remote"), as_json=as_json)


@app.command("pull")
def pull(ref: Ref = None, bank: options.BankDir = None, *, as_json: options.Json = False) -> None:
    """Bring versions from DVC's default remote into the registry.

    Every byte is checked before it is put into the registry. Alias files come by `git pull`.
    """
    registry = options.open_registry(bank)
    with progress.spinner("Pulling", quiet=as_json):
        from adapterbank.sync.remote import pull as run_pull

        moved = run_pull(registry, ref)
    render.answer(_answer(moved, "were fetched"), as_json=as_json)


@app.command("merge-aliases")
def merge_aliases(
    take: Annotated[
        Side | None,
        typer.Option(help="Whose aliases count where both clones moved one, as Git names them."),
    ] = None,
    driver: Annotated[
        tuple[Path, Path, Path, str] | None, typer.Option(hidden=True, help="Of Git's driver.")
    ] = None,
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Resolve the conflicts that merging two clones left in alias files.

    Every event of both is kept. Where both moved an alias to different versions, both are shown
    and --take chooses; the exit code is 5 until then. `init` and `pull` let Git call this itself.
    """
    from adapterbank.sync import merge

    if driver is not None:
        merge.drive(*driver)
        return
    merged = merge.merge_aliases(options.open_registry(bank), take=take)
    if merged.clashes:
        raise merge.unchosen(merged.clashes)
    text = [*(f"{name} is merged" for name in merged.names), "Next: git commit"]
    text = text if merged.names else ["No alias file is in conflict."]
    render.answer(Answer({"merged": merged.names}, text), as_json=as_json)


def _answer(moved: Transfer, what: str) -> Answer:
    parts = {"versions": moved.versions, "new": moved.new}
    content = {name: [render.version_json(v) for v in part] for name, part in parts.items()}
    versions = count(len(moved.versions), "version")
    return Answer(content, [f"{versions}, all whole; {len(moved.new)} {what}"])


def _lines(discrepancies: Sequence[Discrepancy]) -> list[str]:
    return render.problem_lines((item.place, item.message, item.fix) for item in discrepancies)
