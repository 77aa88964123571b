"""Commands that make a bank and look at it: init, list, show, history, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapterbank.cli import options, progress, render, summary
from adapterbank.errors import InputError
from adapterbank.records import ROUTER
from adapterbank.text import count, human_bytes, percent, short_digest

if TYPE_CHECKING:
    from adapterbank.registry.task_record import Event

setup = typer.Typer()
views = typer.Typer()

INTEGRITY = 4  # the exit code of IntegrityError


@setup.command("init")
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Made if missing.")] = Path(),
    *,
    git: Annotated[bool, typer.Option("--git/--no-git", help="Put it under Git.")] = True,
    as_json: options.Json = False,
) -> None:
    """Make a folder a bank of your own.

    It gets parameters, a pipeline and a registry, and is put under Git and DVC. What is there
    already is kept; on a finished bank nothing happens.
    """
    from adapterbank.bank.scaffold import init_bank

    with progress.spinner(f"Making a bank in {directory.resolve()}", quiet=as_json):
        changed = init_bank(directory, git=git)
    root = directory.resolve()
    names = [str(path.resolve().relative_to(root)) for path in changed]
    if as_json:
        render.print_json({"bank": str(root), "changed": names})
        return
    if not names:
        render.line(f"{root} is a bank already; nothing was changed.")
        return
    render.line(f"{root} is a bank now:")
    for name in names:
        render.line(f"  {name}")
    render.line("Next: adapterbank task add NAME --data DIR, then dvc repro")


@views.command("list")
def list_bank(bank: options.BankDir = None, *, as_json: options.Json = False) -> None:
    """List the tasks this bank can answer."""
    registry = options.open_registry(bank)
    rows = summary.list_tasks(registry)
    if as_json:
        render.print_json({"bank": str(registry.root.parent), "tasks": rows})
        return
    if not rows:
        render.line("No task has a version yet. Next: dvc repro")
        return
    summary.print_tasks(rows)
    for row in rows:
        if row["problem"]:
            render.note(f"{row['task']}: {row['problem']}")


@views.command("show")
def show(
    ref: Annotated[str, typer.Argument(metavar="REF", help="dtd, dtd@3, dtd@challenger, …")],
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Show one version in full."""
    from dataclasses import asdict

    from adapterbank.registry.summary import summarise

    registry = options.open_registry(bank)
    version = registry.resolve(ref)
    if version.task == ROUTER:
        raise InputError(f"{version} is the router", fix=f"adapterbank router show {version}")
    found = summarise(version, whole=True)
    named = registry.aliases(version.task)
    content: dict[str, Any] = {
        **summary.version_json(version),
        "aliases": sorted(alias for alias, number in named.items() if number == version.version),
        "path": str(version.path),
        "bytes": sum(found.sizes.values()),
        "files": found.sizes,
        "config": asdict(found.config),
        "metrics": found.metrics,
    }
    if as_json:
        render.print_json(content)
        return
    render.table(("what", "which"), _facts(content))
    render.table(
        ("file", ">size"),
        [(name, human_bytes(size)) for name, size in found.sizes.items()],
    )


@views.command("history")
def history(
    task: Annotated[str, typer.Argument(metavar="TASK")],
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Show everything that was done to a task."""
    registry = options.open_registry(bank)
    events = registry.history(task)
    aliases = registry.aliases(task)
    if as_json:
        content = [{**event.as_json(), "verdict": event.verdict} for event in events]
        render.print_json({"task": task, "aliases": aliases, "history": content})
        return
    verdicts = [_verdict_text(event) for event in events]
    rows = [
        (*_event_row(event), verdict) if any(verdicts) else _event_row(event)
        for event, verdict in zip(events, verdicts, strict=True)
    ]
    columns = (">step", "time (UTC)", "action", "alias", ">from", ">to", "digest", "by", "reason")
    render.table((*columns, "verdict") if any(verdicts) else columns, rows)
    named = ", ".join(f"{alias} is {number}" for alias, number in sorted(aliases.items()))
    render.line(f"Now: {named or 'no alias'}")


@views.command("verify")
def verify(
    ref: Annotated[
        str | None, typer.Argument(metavar="REF", help="A version or a task; all if left out.")
    ] = None,
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Check every byte of the registry.

    Also finds what a killed program left unfinished. Changes nothing; the exit code is 4 if
    anything is not as it should be.
    """
    registry = options.open_registry(bank)
    checked = 0
    with progress.bar("Verifying", quiet=as_json) as shown:

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
        render.print_json({"ok": not problems, "checked": checked, "problems": found})
    else:
        for problem in problems:
            render.line(f"{problem.kind}: {problem.message}")
            if problem.fix:
                render.line(f"  To mend it: {problem.fix}")
        found_text = count(len(problems), "problem") if problems else "all is well"
        render.line(f"{count(checked, 'version')} checked: {found_text}")
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
        ("data", f"{config['data']['source']} ({short_digest(config['data']['digest'])})"),
        ("backbone", config["backbone"]["uri"]),
        ("input", " × ".join(map(str, config["input"]["size"]))),
        ("seed", str(config["seed"])),
    ]
    for name, path in (
        ("validation", ("val",)),
        ("test", ("test",)),
        ("linear probe, test", ("linear_probe", "test")),
    ):
        score = summary.score_of(metrics, *path)
        if score is not None:
            share = percent(score["correct"], score["total"])
            facts.append((name, f"{share} ({score['correct']} of {score['total']})"))
    return [*facts, ("size", human_bytes(content["bytes"])), ("path", content["path"])]


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
        short_digest(event.digest),
        event.actor,
        event.reason,
    )


def _verdict_text(event: Event) -> str:
    """The figures a version was judged by, in one line; all of them stand in ``--json``."""
    from adapterbank.registry.verdicts import parse_verdict

    verdict = parse_verdict(event.verdict)
    return "" if verdict is None else verdict.short()
