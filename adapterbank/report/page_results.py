"""Sections of the report about figures: the accuracy matrix and the router."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adapterbank.report.charts import Cell, Line, curves, heat_map
from adapterbank.report.html import Html, join, tag
from adapterbank.report.page_tables import notice, plain_table, section
from adapterbank.text import count, percent, short_digest

if TYPE_CHECKING:
    from adapterbank.continual.matrix import Right, Step
    from adapterbank.report.overview import MatrixView, RouterView
    from adapterbank.report.routing import Confusion, RoutingFigures

MOST = 40  # rows and columns of a matrix that a person can take in
# Metrics that are shares; all others are differences of shares.
_SHARES = frozenset(
    {"average", "average/micro", "average/incremental", "task_identity", "false_abstention"}
)


def matrix_section(view: MatrixView) -> Html:
    """Show how every task stood after every step, and the metrics of it."""
    title = "Accuracy after every step"
    if not view.steps:
        missing = view.missing or "There is no step yet"
        return section(title, notice(f"{missing}; a release adds one for each new champion",
                                     "dvc repro"))  # fmt: skip
    seen = dict.fromkeys(
        task for step in view.steps for task in (step.task, *sorted(step.oracle))
    )  # fmt: skip
    steps, tasks = view.steps[-MOST:], tuple(seen)[-MOST:]
    words = (
        "Accuracy on the test images of each task (columns) with the champions of each step (rows)."
    )
    if len(view.steps) > len(steps) or len(seen) > len(tasks):
        words += f" The last {len(steps)} of {len(view.steps):,} steps and the last {len(tasks)} of"
        words += f" {len(seen):,} tasks are shown; the metrics are of all."
    told = "Where the task is told, in %. What was learned in a step is bold."
    found = "Where the router finds the task, in %: right is the right label of the right task."
    return section(
        title,
        tag("p", words),
        _matrix(steps, tasks, [step.oracle for step in steps], told),
        _matrix(steps, tasks, [step.routed for step in steps], found),
        _figures(view.summary),
    )


def _matrix(
    steps: Sequence[Step], tasks: Sequence[str], rows: Sequence[Mapping[str, Right]], caption: str
) -> Html:
    named = {
        _named(step): [_of(row.get(task), task == step.task) for task in tasks]
        for step, row in zip(steps, rows, strict=True)
    }
    return heat_map("after step", tasks, named, caption=caption)


def _named(step: Step) -> str:
    kind = "" if step.kind == "new task" else f", {step.kind}"
    return f"{step.step} {step.task}@{step.version}{kind}"


def _of(count: Right | None, mark: bool) -> Cell:  # noqa: FBT001  # of one use
    if count is None:
        return Cell(value=None, text="")
    share = count.correct / count.total
    return Cell(value=share, text=f"{100 * share:.1f}",
                title=f"{count.correct:,} of {count.total:,}", mark=mark)  # fmt: skip


def _figures(found: Mapping[str, Any]) -> Html:
    """List metrics, those of both matrices side by side."""
    oracle, routed, routing = (found.get(name, {}) for name in ("oracle", "routed", "routing"))
    rows = [
        [name, _figure(name, oracle.get(name)), _figure(name, routed.get(name))]
        for name in dict.fromkeys((*oracle, *routed))
    ]
    for name, value in routing.items():
        parts = value if isinstance(value, Mapping) else {"": value}
        rows += [
            [f"{name}: {task}".removesuffix(": "), "–", _figure(name, one)]
            for task, one in parts.items()
        ]
    return plain_table(("metric", ">task told", ">task found by the router"), rows)


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if name in _SHARES:
        return f"{100 * value:.1f} %"
    points = round(100 * value, 1)
    return "0.0 points" if not points else f"{points:+.1f} points".replace("-", "−")


def router_section(view: RouterView) -> Html:
    """Show which tasks the router takes for which, and what it turns away."""
    title = "Router"
    if view.figures is None:
        fix = "adapterbank router rebuild" if view.version is None else "dvc repro"
        return section(title, notice(view.missing or "nothing to show", fix), _left_out(view))
    found = view.figures
    images = sum(row.total for row in found.confusion)
    words = (
        f"Version {view.version}, ",
        tag("span", short_digest(view.digest), class_="digest"),
        f", on {images:,} test images of {count(len(found.confusion), 'task')}.",
    )
    return section(
        title, tag("p", *words), _left_out(view), _confusion(found), _per_task(found),
        _abstention(found),
    )  # fmt: skip


def _left_out(view: RouterView) -> Html:
    lines = (tag("p", f"Without {task}: {why}", class_="muted")
             for task, why in view.left_out.items())  # fmt: skip
    return join(*lines)


def _confusion(found: RoutingFigures) -> Html:
    """Draw all tasks, or those that the router finds worst."""
    caption = "Images of each task (rows) by the task the router chose (columns), in %."
    place = {task: index for index, task in enumerate(found.tasks)}
    shown, columns = found.confusion, found.tasks
    if max(len(shown), len(columns)) > MOST:
        worst = sorted(shown, key=lambda row: row.chosen[place[row.task]] / row.total)[:MOST]
        shown = tuple(row for row in found.confusion if row in worst)
        columns = tuple(row.task for row in shown)
        caption += f" The {len(shown)} of {len(found.confusion):,} that it finds worst."
    rows = {}
    for row in shown:
        cells = [_part(row.chosen[place[task]], row, task == row.task) for task in columns]
        if len(columns) < len(found.tasks):
            others = sum(row.chosen) - sum(row.chosen[place[task]] for task in columns)
            cells.append(_part(others, row, mark=False))
        rows[row.task] = [*cells, _part(row.abstained, row, mark=False)]
    more = ("another task",) if len(columns) < len(found.tasks) else ()
    return heat_map("true task", (*columns, *more, "no known task"), rows, caption=caption)


def _part(count: int, row: Confusion, mark: bool) -> Cell:  # noqa: FBT001  # of one use
    if not count:
        return Cell(value=None, text="0")
    return Cell(value=count / row.total, text=f"{100 * count / row.total:.1f}",
                title=f"{count:,} of {row.total:,} images of {row.task}", mark=mark)  # fmt: skip


def _per_task(found: RoutingFigures) -> Html:
    unknown = {one.task: one for one in found.unknown}
    rows = []
    for row in found.confusion:
        right = row.chosen[found.tasks.index(row.task)]
        one = unknown.get(row.task)
        away = "–" if one is None else percent(one.abstained, one.total)
        auroc = "–" if one is None or math.isnan(one.auroc) else f"{one.auroc:.3f}"
        rows.append([row.task, f"{row.total:,}", percent(right, row.total),
                     percent(row.abstained, row.total),
                     percent(row.ambiguous, row.total), away, auroc])  # fmt: skip
    columns = ("task", ">test images", ">right task", ">turned away", ">ambiguous",
               ">turned away if it were unknown", ">AUROC then")  # fmt: skip
    return plain_table(columns, rows)


def _abstention(found: RoutingFigures) -> Html:
    most = (len(found.known_curve) - 1) / 100
    alphas = [index / 100 for index in range(len(found.known_curve))]
    lines = [
        Line(label="at most this, by design", series="promise", points=[(0.0, 0.0), (most, most)]),
        Line(label="of known tasks", series="known",
             points=list(zip(alphas, found.known_curve, strict=True))),
    ]  # fmt: skip
    words = "Images of known tasks should stay at or below the dashed line."
    if found.unknown_curve is not None:
        points = list(zip(alphas, found.unknown_curve, strict=True))
        lines.append(Line(label="of a task left out", series="unknown", points=points))
        unknown = count(len(found.unknown), "task")
        words += (
            f" Unknown images are those of {unknown}, each left out of a router in turn: the higher"
            " the better."
        )
    chart = curves(lines, title="Share of images turned away against alpha", x_name="alpha",
                   y_name="images turned away", x_most=most, mark=found.alpha)  # fmt: skip
    return join(tag("h3", "What is turned away"), tag("p", words, class_="muted"), chart)
