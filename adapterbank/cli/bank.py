"""Commands that make a bank and look at it: init, list, show, history, verify, gc."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterbank.cli import options, progress, render
from adapterbank.cli.render import Answer, Table, cell
from adapterbank.errors import InputError, IntegrityError
from adapterbank.records import ROUTER
from adapterbank.text import count, human_bytes, human_seconds, short_digest

if TYPE_CHECKING:
    from adapterbank.registry.summary import Summary, TaskRow

setup = typer.Typer()
views = typer.Typer()


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
    from adapterbank.integrations.git import why_lost

    root = directory.resolve()
    with progress.spinner(f"Making a bank in {root}", quiet=as_json):
        changed = init_bank(directory, git=git)
    names = [str(path.resolve().relative_to(root)) for path in changed]
    text = [f"{root} is a bank already; nothing was changed."]
    if names:
        text = [f"{root} is a bank now:", *(f"  {name}" for name in names)]
        text.append("Next: adapterbank task add NAME --data DIR, then dvc repro")
    lost = why_lost(root, "registry/aliases/TASK.json") if git else None
    answer = Answer({"bank": root, "changed": names}, text, [] if lost is None else [lost])
    render.answer(answer, as_json=as_json)


@views.command("list")
def list_bank(bank: options.BankDir = None, *, as_json: options.Json = False) -> None:
    """List the tasks this bank can answer."""
    from adapterbank.registry.summary import list_tasks

    registry = options.open_registry(bank)
    rows = list_tasks(registry)
    answer = Answer(
        {"bank": registry.root.parent, "tasks": rows},
        [task_table(rows) if rows else "No task has a version yet. Next: dvc repro"],
        [f"{row.task}: {row.problem}" for row in rows if row.problem],
    )
    render.answer(answer, as_json=as_json)


@views.command("show")
def show(
    ref: Annotated[str, typer.Argument(metavar="REF", help="dtd, dtd@3, dtd@challenger, …")],
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Show one version in full."""
    from adapterbank.registry.summary import summarise

    registry = options.open_registry(bank)
    version = registry.resolve(ref)
    if version.task == ROUTER:
        raise InputError(f"{version} is the router", fix=f"adapterbank router show {version}")
    summary = summarise(version, whole=True)
    numbers = registry.aliases(version.task)
    aliases = sorted(alias for alias, number in numbers.items() if number == version.version)
    content = {
        **render.version_json(version),
        "aliases": aliases,
        "path": version.path,
        "bytes": sum(summary.sizes.values()),
        "files": summary.sizes,
        "config": summary.config,
        "metrics": summary.metrics,
    }
    sizes = [(name, human_bytes(size)) for name, size in summary.sizes.items()]
    text = [
        Table(("what", "which"), _facts(summary, aliases)),
        Table(("file", ">size"), sizes),
    ]
    render.answer(Answer(content, text), as_json=as_json)


@views.command("history")
def history(
    task: Annotated[str, typer.Argument(metavar="TASK")],
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Show everything that was done to a task."""
    from adapterbank.registry.verdicts import parse_verdict

    registry = options.open_registry(bank)
    events = registry.history(task)
    aliases = registry.aliases(task)
    columns = [">step", "time (UTC)", "action", "alias", ">from", ">to", "digest", "by", "reason"]
    rows = [
        [
            str(event.step),
            event.time,
            event.action,
            cell(event.alias),
            cell(event.from_version),
            cell(event.to_version),
            short_digest(event.digest),
            event.actor,
            event.reason,
        ]
        for event in events
    ]
    verdicts = [parse_verdict(event.verdict) for event in events]
    if any(verdicts):  # in one line each; all of their figures stand in the JSON
        columns.append("verdict")
        for row, verdict in zip(rows, verdicts, strict=True):
            row.append("" if verdict is None else verdict.short())
    now = ", ".join(f"{alias} is {number}" for alias, number in sorted(aliases.items()))
    past = [{**event.as_json(), "verdict": event.verdict} for event in events]
    answer = Answer(
        {"task": task, "aliases": aliases, "history": past},
        [Table(columns, rows), f"Now: {now or 'no alias'}"],
    )
    render.answer(answer, as_json=as_json)


@views.command("verify")
def verify(
    ref: Annotated[
        str | None, typer.Argument(metavar="REF", help="A version or a task; all if left out.")
    ] = None,
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Check every byte of the registry, the backbone's first, and that every version loads.

    Also finds what a killed program left unfinished. Changes nothing; the exit code is 4 if
    anything is not as it should be.
    """
    registry = options.open_registry(bank)
    with progress.bar("Verifying", quiet=as_json) as bar:
        from adapterbank.inference.loads import check_loads

        problems = registry.verify(ref, load=check_loads, progress=bar)
    text = render.problem_lines((item.kind, item.message, item.fix) for item in problems)
    result = count(len(problems), "problem") if problems else "all is well"
    answer = Answer(
        {"ok": not problems, "checked": bar.total, "problems": problems},
        [*text, f"{count(bar.total, 'version')} checked: {result}"],
        exit_code=IntegrityError.exit_code if problems else 0,
    )
    render.answer(answer, as_json=as_json)


@views.command("gc")
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

    leftovers = collect_waste(opened, dry_run=dry_run)
    doomed = [waste for waste in leftovers if waste.needed_by is None]
    total = sum(waste.size_bytes for waste in doomed)
    table = Table(
        (">size", "kind", "what", "kept for"),
        [(human_bytes(w.size_bytes), w.kind, str(w.path), cell(w.needed_by)) for w in leftovers],
    )
    outcome = "to delete" if dry_run or not doomed else "deleted"
    entries = [
        {
            "kind": waste.kind,
            "task": waste.task,
            "path": waste.path,
            "bytes": waste.size_bytes,
            "needed_by": waste.needed_by,
        }
        for waste in leftovers
    ]
    answer = Answer(
        {
            "dry_run": dry_run,
            "deleted": 0 if dry_run else len(doomed),
            "bytes": total,
            "found": entries,
        },
        [
            *([table] if leftovers else []),
            f"{count(len(doomed), 'thing')} {outcome}, {human_bytes(total)}",
        ],
    )
    render.answer(answer, as_json=as_json)


def task_table(rows: Sequence[TaskRow], seconds: Mapping[str, float] | None = None) -> Table:
    """Make the table of tasks.

    Args:
        rows: of :func:`list_tasks`.
        seconds: training time of tasks; a column more.
    """
    columns = ["task", ">champion", "method", ">classes", ">test", ">linear probe", ">parameters",
               ">size", ">versions"]  # fmt: skip
    cells = [
        [
            row.task,
            cell(row.version),
            row.method or _state(row),
            cell(row.classes),
            render.share(row.test),
            render.share(row.linear_probe),
            # Apart: the head grows with the classes.
            "{method:,} + {head:,}".format_map(row.parameters) if row.parameters else "–",
            human_bytes(row.bytes),
            str(row.versions),
        ]
        for row in rows
    ]
    if seconds is not None:
        columns.append(">trained in")
        for row, own in zip(rows, cells, strict=True):
            own.append(human_seconds(seconds.get(row.task)))
    return Table(columns, cells)


def _state(row: TaskRow) -> str:
    if row.absent:
        return "not pulled"
    return "damaged" if row.problem else "no champion"


def _facts(summary: Summary, aliases: list[str]) -> list[tuple[str, str]]:
    from adapterbank.registry.adapter_config import trials_of
    from adapterbank.registry.summary import score_of

    config, metrics = summary.config, summary.metrics
    more = f" and {len(config.classes) - 8} more" if len(config.classes) > 8 else ""
    trials = trials_of(config.train)
    chosen = "" if trials is None else f" (best of {trials} trials: too high)"
    scores = {
        f"validation{chosen}": score_of(metrics, "val"),
        "test": score_of(metrics, "test"),
        "linear probe, test": score_of(metrics, "linear_probe", "test"),
    }
    return [
        ("version", str(summary.version)),
        ("digest", summary.version.digest),
        ("aliases", ", ".join(aliases) or "none"),
        ("method", config.method.name),
        *((f"  {name}", str(value)) for name, value in config.method.hyper.items()),
        ("classes", f"{len(config.classes)}: {', '.join(config.classes[:8])}{more}"),
        ("data", f"{config.data.source} ({short_digest(config.data.digest)})"),
        ("backbone", config.backbone.uri),
        ("input", " × ".join(map(str, config.input.size))),
        ("seed", str(config.seed)),
        *(
            (name, f"{render.share(score)} ({score.correct} of {score.total})")
            for name, score in scores.items()
            if score is not None
        ),
        ("size", human_bytes(sum(summary.sizes.values()))),
        ("path", str(summary.version.path)),
    ]
