"""The command that learns a scenario: learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapterbank.cli import options, render
from adapterbank.cli.render import Answer, Table, cell

if TYPE_CHECKING:
    from adapterbank.continual.learn import Learned
    from adapterbank.continual.matrix import Matrix
    from adapterbank.continual.scenario import Entry
    from adapterbank.records import Score

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

    plan = load_scenario(opened, scenario)

    def show(result: Learned | None, place: int, entry: Entry) -> None:
        if result is None:
            render.note("")
            render.note(f"Entry {place} of {len(plan.entries)}: {entry.task}")
        else:
            render.note(f"{entry.task}@{result.version}: {result.outcome}: {result.reason}")

    ensure_dvc(opened.root, git=git_holds(opened.root))
    with render.answers_diverted(divert=as_json):
        learned = learn(opened, plan, keep_going=keep_going, show=show)
    matrix = read_matrix(opened.root)
    figures = summary(matrix)
    answer = Answer(
        {
            "scenario": scenario,
            "entries": learned,
            "steps": [step.as_json() for step in matrix.steps],
            "metrics": figures,
        },
        [
            Table(
                (">entry", "task", "kind", "outcome", ">version"),
                [(str(e.step), e.task, e.kind, e.outcome, cell(e.version)) for e in learned],
            ),
            *_matrix_text(matrix, figures),
        ],
    )
    render.answer(answer, as_json=as_json)


def _matrix_text(matrix: Matrix, figures: dict[str, Any]) -> list[str | Table]:
    """Write the accuracy matrix and every metric of its last step."""
    if not matrix.steps:
        return ["No task has a champion yet."]
    last = matrix.steps[-1]
    tasks = [task for task in dict.fromkeys(s.task for s in matrix.steps) if task in last.champions]
    rows = [
        (
            str(step.step + 1),
            f"{step.task}@{step.version}",
            step.kind,
            *(_accuracies(step.oracle.get(task), step.routed.get(task)) for task in tasks),
        )
        for step in matrix.steps
    ]
    text: list[str | Table] = [
        Table(
            (">step", "learned", "kind", *(f">{task}" for task in tasks)),
            rows,
            title="Test accuracy in %, the task given (and found by the router)",
        )
    ]
    if last.carried:
        text.append(f"Not measured again, images not prepared here: {', '.join(last.carried)}")
    parts = [figures.get(name, {}) for name in ("oracle", "routed")]
    names = dict.fromkeys([*parts[0], *parts[1]])
    text.append(
        Table(
            ("metric, in points", ">task given", ">task found"),
            [(name, *(_points(part.get(name)) for part in parts)) for name in names],
        )
    )
    routing = figures.get("routing", {})
    text += [
        f"{label}: {_points(routing[key])}" for key, label in _ROUTING.items() if key in routing
    ]
    lost = routing.get("interference", {})
    if any(value > 0 for value in lost.values()):
        worst = max(lost, key=lambda task: lost[task])
        text.append(f"most lost to tasks learned later: {_points(lost[worst])} ({worst})")
    return text


def _accuracies(oracle: Score | None, routed: Score | None) -> str:
    if oracle is None:
        return ""
    by_router = "" if routed is None else f" ({100 * routed.accuracy:.1f})"
    return f"{100 * oracle.accuracy:.1f}{by_router}"


def _points(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"
