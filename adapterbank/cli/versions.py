"""Commands that publish versions and move aliases: register, promote, rollback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapterbank.cli import options, progress, render, summary
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

    The same bytes are the same version, however often they come.
    """
    opened = options.open_bank(bank)
    name = _task_of(directory) if task is None else task
    version = opened.registry.register_directory(directory, task=name, reason="registered by hand")
    with progress.spinner("Showing it to MLflow and DVC", quiet=True):
        from adapterbank.bank.mirror import follow_version
        from adapterbank.integrations.dvc.repo import keep_output

        mirror = follow_version(opened, version)
        dvc = keep_output(opened.root, f"register@{name}", f"registry/adapters/{name}")
    if as_json:
        content = {**summary.version_json(version), "path": str(version.path)}
        render.print_json({**content, "mirror": mirror, "dvc": dvc})
    else:
        render.line(f"{version} is registered: sha256:{version.digest}")
        render.line(f"Next: adapterbank promote {version}")
    if mirror is not None:
        render.note(f"{version} is registered; only MLflow does not show it yet: {mirror}")
    if dvc is not None:
        render.note(f"DVC does not keep {version} yet: {dvc}")


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
    device: options.Device = None,
    bank: options.BankDir = None,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Although its last verdict refused it; needs --reason.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Move an alias to a version.

    The version is verified and replays its canary first. Where somebody else moved the alias
    meanwhile nothing happens, and the exit code is 5. What a release refused becomes no champion
    (exit code 1) unless it is forced with a reason; history keeps both.
    """
    opened = options.open_bank(bank)
    believed = _expected(opened.registry, ref, alias, expected)
    opened.registry.resolve(ref)  # before the slow imports: most mistakes are names
    from adapterbank.release import moves

    done = moves.promote(
        opened, ref, alias=alias, expected=believed, reason=reason, force=force, device=device
    )
    _report(done, as_json=as_json)


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

    believed = ANY if expected is None else expected
    done = moves.rollback(opened, task, alias=alias, expected=believed, reason=reason)
    _report(done, as_json=as_json)


def _task_of(directory: Path) -> str:
    """Read which task a version's configuration names."""
    path = directory / "adapter_config.json"
    try:
        task = json.loads(path.read_bytes())["task"]
    except FileNotFoundError as error:
        raise InputError(
            f"{directory} holds no version: adapter_config.json is missing",
            fix="adapterbank evaluate TASK --trained, which writes work/TASK/version",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} names no task", fix="adapterbank register DIR --task TASK") from (
            error
        )
    return str(task)


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


def _report(done: HandMove, *, as_json: bool) -> None:
    move, version = done.move, done.move.after
    if as_json:
        content: dict[str, Any] = {
            **summary.version_json(version),
            "alias": move.alias,
            "from": move.before,
            "to": version.version,
            "moved": move.moved,
            "mirror": done.mirror,
        }
        render.print_json(content)
    elif move.moved:
        before = "nothing" if move.before is None else f"version {move.before}"
        render.line(
            f"{version.task}@{move.alias} is version {version.version} now"
            f" (sha256:{short_digest(version.digest)}), it was {before}"
        )
    else:
        render.line(f"{version.task}@{move.alias} is version {version.version} already")
    if done.mirror is not None:
        render.note(
            f"{version.task}@{move.alias} is version {version.version}; only MLflow does not show"
            f" it yet, the next release or promote will: {done.mirror}"
        )
