"""What tasks may learn from one another: transfer rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapterbank.cli import options, progress, render, summary, work
from adapterbank.text import count

if TYPE_CHECKING:
    from adapterbank.pipeline.parents import Ranking

app = typer.Typer(no_args_is_help=True, help="See which adapters a new one could start from.")


@app.callback()
def _group() -> None:
    """Stand for the group, so that its one command keeps its name."""


@app.command("rank")
def rank(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task that is to be learned.")],
    bank: options.BankDir = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Rank the champions as parents of a task's next adapter.

    The distance is between the frozen features of two tasks, in nats. The nearest five adapters
    are run on some of the task's training images; the H-score says how far apart their features
    hold its classes, the best is what `warm_start: auto` starts from. Nothing is changed.
    """
    opened = options.open_bank(bank)
    opened.config.task(task)
    work.make_ready(opened, task, again=False, quiet=as_json)
    with progress.bar(f"Ranking for {task}", quiet=as_json) as shown:
        from adapterbank.pipeline.warm_start import rank_parents

        found = rank_parents(opened, task, progress=shown)
    if as_json:
        render.print_json(_ranking_json(task, found))
        return
    for name, reason in found.left_out.items():
        render.note(f"{name} is left out: {reason}")
    if found.parent is None:
        render.line(f"No champion of another task has the method and the shapes of {task}")
        return
    rows = [
        (str(one.version), f"{one.distance:.1f}", "–" if one.score is None else f"{one.score:.3f}")
        for one in found.candidates
    ]
    bare = ("backbone alone", "–", f"{found.bare:.3f}")
    render.table((f"parent of {task}", ">distance", ">H-score"), [*rows, bare])
    images = count(found.images, "training image")
    render.line(f"On {images}, warm_start: auto starts from {found.parent.version}")


def _ranking_json(task: str, found: Ranking) -> dict[str, Any]:
    parent = found.parent
    return {
        "task": task,
        "images": found.images,
        "bare": found.bare,
        "candidates": [
            {**summary.version_json(one.version), "distance": one.distance, "h_score": one.score}
            for one in found.candidates
        ],
        "parent": None if parent is None else summary.version_json(parent.version),
        "left_out": dict(found.left_out),
    }
