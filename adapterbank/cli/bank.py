"""Commands that make a bank and look at it: init, list, show, history, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapterbank.cli import _options, _progress, _render, _summary
from adapterbank.errors import InputError
from adapterbank.records import ROUTER

if TYPE_CHECKING:
    from adapterbank.registry.task_record import Event

__all__ = ["setup", "views"]

setup = typer.Typer()
views = typer.Typer()

INTEGRITY = 4  # the exit code of IntegrityError


@setup.command("init")
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Made if missing.")] = Path(),
    *,
    git: Annotated[bool, typer.Option("--git/--no-git", help="Put it under Git.")] = True,
    as_json: _options.Json = False,
) -> None:
    """Make a folder a bank of your own.

    It gets parameters, a pipeline and a registry, and is put under Git and DVC. What is there
    already is kept; on a finished bank nothing happens.
    """
    from adapterbank.integrations.scaffold import init_bank

    with _progress.spinner(f"Making a bank in {directory.resolve()}", quiet=as_json):
        changed = init_bank(directory, git=git)
    root = directory.resolve()
    names = [str(path.resolve().relative_to(root)) for path in changed]
    if as_json:
        _render.print_json({"bank": str(root), "changed": names})
        return
    if not names:
        _render.line(f"{root} is a bank already; nothing was changed.")
        return
    _render.line(f"{root} is a bank now:")
    for name in names:
        _render.line(f"  {name}")
    _render.line("Next: adapterbank task add NAME --data DIR, then dvc repro")


@views.command("list")
def list_bank(bank: _options.BankDir = None, *, as_json: _options.Json = False) -> None:
    """List the tasks this bank can answer."""
    registry = _options.open_registry(bank)
    rows = _summary.list_tasks(registry)
    if as_json:
        _render.print_json({"bank": str(registry.root.parent), "tasks": rows})
        return
    if not rows:
        _render.line("No task has a version yet. Next: dvc repro")
        return
    _summary.print_tasks(rows)
    for row in rows:
        if row["problem"]:
            _render.note(f"{row['task']}: {row['problem']}")


@views.command("show")
def show(
    ref: Annotated[str, typer.Argument(metavar="REF", help="dtd, dtd@3, dtd@challenger, …")],
    bank: _options.BankDir = None,
    *,
    as_json: _options.Json = False,
) -> None:
    """Show one version in full."""
    from dataclasses import asdict

    registry = _options.open_registry(bank)
    version = registry.resolve(ref)
    if version.task == ROUTER:
        raise InputError(f"{version} is the router", fix=f"adapterbank router show {version}")
    summary = _summary.summarise(registry, version)
    named = registry.aliases(version.task)
    content: dict[str, Any] = {
        **_summary.version_json(version),
        "aliases": sorted(alias for alias, number in named.items() if number == version.version),
        "path": str(version.path),
        "bytes": sum(summary.sizes.values()),
        "files": summary.sizes,
        "config": asdict(summary.config),
        "metrics": summary.metrics,
    }
    if as_json:
        _render.print_json(content)
        return
    _render.table(("what", "which"), _facts(content))
    _render.table(
        ("file", ">size"),
        [(name, _render.human_bytes(size)) for name, size in summary.sizes.items()],
    )


@views.command("history")
def history(
    task: Annotated[str, typer.Argument(metavar="TASK")],
    bank: _options.BankDir = None,
    *,
    as_json: _options.Json = False,
) -> None:
    """Show everything that was done to a task."""
    registry = _options.open_registry(bank)
    events = registry.history(task)
    aliases = registry.aliases(task)
    if as_json:
        content = [{**event.as_json(), "verdict": event.verdict} for event in events]
        _render.print_json({"task": task, "aliases": aliases, "history": content})
        return
    verdicts = [_verdict_text(event) for event in events]
    rows = [
        (*_event_row(event), verdict) if any(verdicts) else _event_row(event)
        for event, verdict in zip(events, verdicts, strict=True)
    ]
    columns = (">step", "time (UTC)", "action", "alias", ">from", ">to", "digest", "by", "reason")
    _render.table((*columns, "verdict") if any(verdicts) else columns, rows)
    named = ", ".join(f"{alias} is {number}" for alias, number in sorted(aliases.items()))
    _render.line(f"Now: {named or 'no alias'}")


@views.command("verify")
def verify(
    ref: Annotated[
        str | None, typer.Argument(metavar="REF", help="A version or a task; all if left out.")
    ] = None,
    bank: _options.BankDir = None,
    *,
    as_json: _options.Json = False,
) -> None:
    """Check every byte of the registry.

    Also finds what a killed program left unfinished. Changes nothing; the exit code is 4 if
    anything is not as it should be.
    """
    registry = _options.open_registry(bank)
    checked = 0
    with _progress.bar("Verifying", quiet=as_json) as shown:

        def report(done: int, total: int) -> None:
            nonlocal checked
            checked = total
            shown(done, total)

        problems = registry.verify(ref, progress=report)
    if as_json:
        found = [
            {
                "kind": problem.kind,
                "task": problem.task,
                "path": str(problem.path),
                "message": problem.message,
                "fix": problem.fix,
            }
            for problem in problems
        ]
        _render.print_json({"ok": not problems, "checked": checked, "problems": found})
    else:
        for problem in problems:
            _render.line(f"{problem.kind}: {problem.message}")
            if problem.fix:
                _render.line(f"  To mend it: {problem.fix}")
        found_text = _render.count(len(problems), "problem") if problems else "all is well"
        _render.line(f"{_render.count(checked, 'version')} checked: {found_text}")
    if problems:
        raise typer.Exit(INTEGRITY)


def _facts(content: dict[str, Any]) -> list[tuple[str, str]]:
    config, metrics = content["config"], content["metrics"]
    facts = [
        ("version", f"{content['task']}@{content['version']}"),
        ("digest", content["digest"]),
        ("aliases", ", ".join(content["aliases"]) or "none"),
        ("method", config["method"]["name"]),
        *((f"  {name}", str(value)) for name, value in config["method"]["hyper"].items()),
        ("classes", f"{len(config['classes'])}: {_shortened(config['classes'])}"),
        ("data", f"{config['data']['source']} ({_render.short_digest(config['data']['digest'])})"),
        ("backbone", config["backbone"]["uri"]),
        ("input", " × ".join(map(str, config["input"]["size"]))),
        ("seed", str(config["seed"])),
    ]
    for name, path in (
        ("validation", ("val",)),
        ("test", ("test",)),
        ("linear probe, test", ("linear_probe", "test")),
    ):
        score = _summary.score_of(metrics, *path)
        if score is not None:
            share = _render.percent(score["correct"], score["total"])
            facts.append((name, f"{share} ({score['correct']} of {score['total']})"))
    told = _summary.warm_start(metrics)
    if told is not None:
        facts.append(("warm start", told))
    return [*facts, ("size", _render.human_bytes(content["bytes"])), ("path", content["path"])]


def _shortened(classes: tuple[str, ...]) -> str:
    more = f" and {len(classes) - 8} more" if len(classes) > 8 else ""
    return ", ".join(classes[:8]) + more


def _event_row(event: Event) -> tuple[str, ...]:
    return (
        str(event.step),
        event.time,
        event.action,
        event.alias or "–",
        "–" if event.from_version is None else str(event.from_version),
        "–" if event.to_version is None else str(event.to_version),
        _render.short_digest(event.digest),
        event.actor,
        event.reason,
    )


def _verdict_text(event: Event) -> str:
    """The figures a version was judged by, in one line; all of them stand in ``--json``."""
    from adapterbank.continual.verdicts import parse_verdict

    verdict = parse_verdict(event.verdict)
    return "" if verdict is None else verdict.short()
