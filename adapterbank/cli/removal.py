"""Commands that take something away: task remove, gc."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapterbank.cli import options, render
from adapterbank.errors import InputError
from adapterbank.text import count, human_bytes

if TYPE_CHECKING:
    from adapterbank.bank.remove_task import Removal
    from adapterbank.registry.collect import Waste

app = typer.Typer()
of_tasks = typer.Typer()


@of_tasks.command("remove")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the history.")] = "",
    bank: options.BankDir = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: options.Json = False,
) -> None:
    """Build and answer a task no more.

    Takes it out of pipelines/params.yaml and its aliases away. Versions and history stay, and
    promote brings the answers back.
    """
    opened = options.open_bank(bank)
    if not yes:
        _ask(name)
    from adapterbank.bank.remove_task import remove_task

    removal = remove_task(opened, name, reason=reason)
    if as_json:
        content: dict[str, Any] = {
            "task": removal.task,
            "configured": removal.configured,
            "aliases": {event.alias: event.from_version for event in removal.events},
            "versions": removal.versions,
            "mirror": removal.mirror,
        }
        render.print_json(content)
    else:
        _print(removal)
    if removal.mirror is not None:
        render.note(
            f"{name} is removed; only MLflow still shows its aliases, repeat the command to take"
            f" them away: {removal.mirror}"
        )


@app.command("gc")
def collect(
    bank: options.BankDir = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: options.Json = False,
) -> None:
    """Delete what nothing needs.

    That is what killed programs left in the registry, and whole versions that no record names, in
    this folder or in any commit. A registered version is never deleted.
    """
    opened = options.open_bank(bank)
    from adapterbank.bank.gc import collect_waste

    leftovers = collect_waste(opened, dry_run=True)  # said first, then done
    doomed = [waste for waste in leftovers if waste.needed_by is None]
    total = sum(waste.size_bytes for waste in doomed)
    if as_json:
        if not dry_run:
            leftovers = collect_waste(opened, dry_run=False)
        render.print_json(_as_json(leftovers, dry_run=dry_run))
        return
    if leftovers:
        render.table((">size", "kind", "what", "kept for"), [_row(waste) for waste in leftovers])
    things = count(len(doomed), "thing")
    if dry_run or not doomed:
        render.line(f"{things} to delete, {human_bytes(total)}")
        return
    gone = [waste for waste in collect_waste(opened, dry_run=False) if waste.needed_by is None]
    freed = human_bytes(sum(waste.size_bytes for waste in gone))
    render.line(f"{count(len(gone), 'thing')} deleted, {freed}")


def _ask(name: str) -> None:
    """Ask on a terminal; elsewhere nobody could answer.

    Raises:
        InputError: there is no terminal.
    """
    if not sys.stdin.isatty():
        raise InputError(
            f"task remove {name} needs --yes where nobody can be asked",
            fix=f"adapterbank task remove {name} --yes",
        )
    typer.confirm(f"Build and answer {name} no more?", abort=True, err=True)


def _print(removal: Removal) -> None:
    if not removal.configured and not removal.events:
        render.line(f"{removal.task} is removed already; {_kept(removal)}")
        return
    if removal.configured:
        render.line(f"{removal.task} is not in pipelines/params.yaml any more.")
    for event in removal.events:
        if event.from_version is not None:
            render.line(
                f"{removal.task}@{event.alias} was version {event.from_version}; it is gone."
            )
    kept = _kept(removal)
    render.line(f"{kept[0].upper()}{kept[1:]}")


def _kept(removal: Removal) -> str:
    if not removal.versions:
        return "it had no version."
    return (
        f"its {count(removal.versions, 'version')} and their history are kept:"
        f" adapterbank history {removal.task}"
    )


def _row(waste: Waste) -> tuple[str, ...]:
    size = human_bytes(waste.size_bytes)
    return (size, waste.kind, str(waste.path), waste.needed_by or "–")


def _as_json(leftovers: tuple[Waste, ...], *, dry_run: bool) -> dict[str, Any]:
    rows = [
        {
            "kind": waste.kind,
            "task": waste.task,
            "path": str(waste.path),
            "bytes": waste.size_bytes,
            "needed_by": waste.needed_by,
        }
        for waste in leftovers
    ]
    doomed = [waste.size_bytes for waste in leftovers if waste.needed_by is None]
    return {"dry_run": dry_run, "deleted": 0 if dry_run else len(doomed), "bytes": sum(doomed),
            "found": rows}  # fmt: skip
