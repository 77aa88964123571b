"""Commands that publish versions and move aliases: register, promote, rollback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterbank.cli import options, progress, render
from adapterbank.cli.render import Answer
from adapterbank.errors import InputError
from adapterbank.text import short_digest

if TYPE_CHECKING:
    from adapterbank.registry.aliases import Expected
    from adapterbank.registry.store import Registry
    from adapterbank.release.moves import HandMove

app = typer.Typer()

Alias = Annotated[str, typer.Option("--alias", help="The alias to move.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the history.")]


@app.command("register")
def register(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The files of a version.")],
    task: Annotated[
        str | None, typer.Option("--task", help="Its task; the one its configuration names.")
    ] = None,
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Publish a folder as an immutable version.

    The same bytes are the same version, however often they come. What would not be answered with
    is refused: its tensors are loaded and its canary is replayed first.
    """
    from adapterbank.registry.summary import read_task

    opened = options.open_bank(bank)
    name = read_task(directory) if task is None else task
    with progress.spinner("Replaying its canary", quiet=True):
        from adapterbank.release import moves

        version = moves.register(opened, directory, name)
    with progress.spinner("Showing it to MLflow and DVC", quiet=True):
        from adapterbank.bank.keep import keep_versions
        from adapterbank.bank.mirror import follow_version
        from adapterbank.integrations.git import why_lost

        mirror = follow_version(opened, version)
        dvc = keep_versions(opened.registry, name, [version])
        git = why_lost(opened.root, f"registry/aliases/{name}.json")
    notes = [] if git is None else [git]
    if mirror is not None:
        notes.append(f"{version} is registered; only MLflow does not show it yet: {mirror}")
    if dvc is not None:
        notes.append(f"DVC does not keep {version} yet: {dvc}")
    answer = Answer(
        {**render.version_json(version), "path": version.path, "mirror": mirror, "dvc": dvc},
        [
            f"{version} is registered: sha256:{version.digest}",
            f"Next: adapterbank promote {version}",
        ],
        notes,
    )
    render.answer(answer, as_json=as_json)


@app.command("promote")
def promote(  # noqa: PLR0913  # an option each
    ref: Annotated[str, typer.Argument(metavar="REF", help="dtd@3, dtd@sha256:1f0c, …")],
    alias: Alias = "champion",
    expected: Annotated[
        str | None,
        typer.Option(
            metavar="N|none",
            help="The version the alias must still have; what it has now by default.",
        ),
    ] = None,
    reason: Reason = "",
    device: options.BankDevice = None,
    bank: options.BankDir = None,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Although its last verdict refused it; needs --reason.")
    ] = False,
    accept_classes: options.AcceptClasses = False,
    as_json: options.Json = False,
) -> None:
    """Move an alias to a version.

    The version is verified and replays its canary first. Where somebody else moved the alias
    meanwhile nothing happens, and the exit code is 5. What a release refused becomes no champion
    (exit code 1) unless it is forced with a reason; history keeps both. Other classes than the
    champion's have to be accepted.
    """
    opened = options.open_bank(bank)
    now = _expected(opened.registry, ref, alias, expected)
    opened.registry.resolve(ref)  # before the slow imports: most mistakes are names
    from adapterbank.release import moves

    move = moves.promote(
        opened, ref, alias=alias, expected=now, reason=reason, force=force,
        accept_classes=accept_classes, device=device,
    )  # fmt: skip
    render.answer(_answer(move), as_json=as_json)


@app.command("rollback")
def rollback(
    task: Annotated[str, typer.Argument(metavar="TASK")],
    alias: Alias = "champion",
    expected: Annotated[
        int | None,
        typer.Option(metavar="N", help="The version the alias must still have; any by default."),
    ] = None,
    reason: Reason = "",
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Move an alias back to the version it meant before.

    Repeated, it goes further back; with --expected it does not, and a second one is a conflict
    (exit code 5).
    """
    opened = options.open_bank(bank)
    opened.registry.aliases(task)  # before the slow imports
    from adapterbank.registry.aliases import ANY
    from adapterbank.release import moves

    now = ANY if expected is None else expected
    move = moves.rollback(opened, task, alias=alias, expected=now, reason=reason)
    render.answer(_answer(move), as_json=as_json)


def _expected(registry: Registry, ref: str, alias: str, given: str | None) -> Expected:
    """Turn ``--expected`` into what the compare-and-swap compares with."""
    from adapterbank.records import Reference

    if given is None:
        return registry.aliases(Reference.parse(ref).task).get(alias)
    if given.lower() == "none":
        return None
    if not given.isascii() or not given.isdigit():
        raise InputError(f"--expected {given}: expected a version's number or none")
    return int(given)


def _answer(hand_move: HandMove) -> Answer:
    move, version, mirror = hand_move.move, hand_move.move.after, hand_move.mirror
    alias, number = f"{version.task}@{move.alias}", version.version
    before = "nothing" if move.before is None else f"version {move.before}"
    text = f"{alias} is version {number} already"
    if move.moved:
        digest = short_digest(version.digest)
        text = f"{alias} is version {number} now (sha256:{digest}), it was {before}"
    content = {
        **render.version_json(version),
        "alias": move.alias,
        "from": move.before,
        "to": number,
        "moved": move.moved,
        "mirror": mirror,
    }
    note = (
        f"{alias} is version {number}; only MLflow does not show it yet, the next release or"
        f" promote will: {mirror}"
    )
    return Answer(content, [text], [] if mirror is None else [note])
