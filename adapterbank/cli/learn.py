"""The command that learns a scenario: learn."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapterbank.cli import options, render

if TYPE_CHECKING:
    from adapterbank.continual.learn import Learned
    from adapterbank.continual.matrix import Matrix
    from adapterbank.continual.scenario import Entry

app = typer.Typer()

_ROUTING = {
    "task_identity": "images whose task is found",
    "oracle_gap": "lost by finding it",
    "false_abstention": "images of a task that are rejected as unknown",
}


@app.command("learn")
def learn(
    scenario: Annotated[
        Path, typer.Argument(metavar="SCENARIO.yaml", help="tasks: a list, in their order.")
    ],
    bank: options.BankDir = None,
    *,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Go on after a version that a gate refused.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Learn tasks one after the other, as a scenario says.

    Each entry is a task's section of pipelines/params.yaml with its name. It is written there,
    then dvc repro trains, judges and releases it. A name that comes again is a new version of that
    task; classes are new classes within a data set; domain_of a new domain of a task. Repeating
    the command goes on where it was stopped.
    """
    opened = options.open_bank(bank)
    from adapterbank.continual.learn import learn
    from adapterbank.continual.matrix import read_matrix, summary
    from adapterbank.continual.scenario import load_scenario
    from adapterbank.integrations.dvc.repo import ensure_dvc
    from adapterbank.integrations.git import git_holds

    read = load_scenario(opened, scenario)
    total = len(read.entries)

    def show(done: Learned | None, place: int, entry: Entry) -> None:
        if done is None:
            render.note(f"\nEntry {place} of {total}: {entry.task}")
        else:
            render.note(f"{entry.task}@{done.version}: {done.outcome}: {done.reason}")

    ensure_dvc(opened.root, git=git_holds(opened.root))
    with render.answers_diverted() if as_json else nullcontext():
        learned = learn(opened, read, keep_going=keep_going, show=show)
    matrix = read_matrix(opened.root)
    figures = summary(matrix)
    if as_json:
        render.print_json(
            {
                "scenario": str(scenario),
                "entries": [asdict(one) for one in learned],
                "steps": [step.as_json() for step in matrix.steps],
                "metrics": figures,
            }
        )
        return
    render.table(
        (">entry", "task", "kind", "outcome", ">version"),
        [(str(one.step), one.task, one.kind, one.outcome, _number(one.version)) for one in learned],
    )
    print_matrix(matrix, figures)


def print_matrix(matrix: Matrix, figures: dict[str, Any]) -> None:
    """Print the accuracy matrix and every metric of its last step."""
    if not matrix.steps:
        render.line("No task has a champion yet.")
        return
    last = matrix.steps[-1]
    tasks = [task for task in dict.fromkeys(s.task for s in matrix.steps) if task in last.champions]
    rows = []
    for step in matrix.steps:
        cells = []
        for task in tasks:
            oracle, routed = step.oracle.get(task), step.routed.get(task)
            found = "" if routed is None else f" ({100 * routed.accuracy:.1f})"
            cells.append("" if oracle is None else f"{100 * oracle.accuracy:.1f}{found}")
        rows.append((str(step.step + 1), f"{step.task}@{step.version}", step.kind, *cells))
    render.table(
        (">step", "learned", "kind", *(f">{task}" for task in tasks)),
        rows,
        title="Test accuracy in %, the task given (and found by the router)",
    )
    if last.carried:
        render.line(f"Not measured again, images not prepared here: {', '.join(last.carried)}")
    parts = [figures.get(name, {}) for name in ("oracle", "routed")]
    names = dict.fromkeys([*parts[0], *parts[1]])
    render.table(
        ("metric, in points", ">task given", ">task found"),
        [(name, *(_points(part.get(name)) for part in parts)) for name in names],
    )
    routing = figures.get("routing", {})
    for name, label in _ROUTING.items():
        if name in routing:
            render.line(f"{label}: {_points(routing[name])}")
    lost = routing.get("interference", {})
    if any(value > 0 for value in lost.values()):
        worst = max(lost, key=lambda task: lost[task])
        render.line(f"most lost to tasks learned later: {_points(lost[worst])} ({worst})")


def _number(version: int | None) -> str:
    return "–" if version is None else str(version)


def _points(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"
