"""The page of ``adapterbank report``: one file of HTML that needs nothing else, and no script."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from statistics import fmean
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from adapterbank import __version__
from adapterbank.continual.matrix import Figure, Step
from adapterbank.integrations.figures import abstention_curves, accuracy_curves, svg
from adapterbank.records import Score
from adapterbank.report.overview import Overview
from adapterbank.report.routing import ALPHAS, Confusion, RoutingFigures, Unknown
from adapterbank.text import count, human_bytes, percent, short_digest

MOST: Final = 40
"""Rows and columns of a matrix that a person can take in."""
LEVELS: Final = 9
"""Colours of a heat map, classes q0 to q8 of the style sheet."""

UNFOLDED: Final = 200
"""Events of all histories that are shown without being asked for."""
CLASSES: Final = 30
"""Classes of a task that are named."""

# Neither HTML nor XML has these characters, not even escaped.
_ILLEGAL: Final = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010fffd]"
)
# Metrics that are shares; all others are differences of shares.
_SHARES: Final = frozenset(
    {"average", "average/micro", "average/incremental", "task_identity", "false_abstention"}
)
_IN_OTHER_COLUMNS: Final = frozenset({"task", "version", "champion", "outcome", "reason", "data"})


def render_page(overview: Overview) -> bytes:
    """Write the page. The same overview gives the same bytes."""
    figures = overview.router.figures
    histories = [overview.router.history, *(view.history for view in overview.tasks)]
    page = _template().render(
        overview=overview,
        package_version=__version__,
        levels=LEVELS,
        most=MOST,
        unfolded=sum(len(history) for history in histories) <= UNFOLDED,
        metrics=list(_metrics(overview.matrix.summary)),
        **_accuracy(overview.matrix.steps),
        **({} if figures is None else _routing(figures)),
    )
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", page).encode()


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("adapterbank.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amount": count,
        "auroc": _auroc,
        "bytes": human_bytes,
        "digest": short_digest,
        "mean": _mean,
        "metric": _metric,
        "moment": moment,
        "named": _named,
        "percent": percent,
        "score": _score,
        "rejected": _rejected,
        "verdict_words": verdict_words,
    }
    return environment.get_template("page.html")


def moment(time: str) -> str:
    """Write a time as people read it; what is none stays as it is."""
    return re.sub(r"(\d)T(\d\d:.*)Z", r"\1 \2 UTC", time)


def verdict_words(verdict: Mapping[str, Any]) -> Iterator[str]:
    """Say the numbers of a verdict, whatever a release that wrote it had judged by."""
    for name, value in verdict.items():
        if name not in _IN_OTHER_COLUMNS:
            yield from _words(name.replace("_", " "), value)


def _words(name: str, value: object) -> Iterator[str]:
    match value:
        case None:
            return
        case {"correct": int(correct), "total": int(total)}:
            yield f"{name} {correct}/{total} ({percent(correct, total)})"
        case Mapping():
            for key, item in value.items():
                yield from _words(f"{name} {str(key).replace('_', ' ')}", item)
        case list():
            yield f"{name} {', '.join(map(_word, value))}"
        case _:
            yield f"{name} {_word(value)}"


def _word(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _score(score: Score | None) -> str:
    return "–" if score is None else percent(score.correct, score.total)


def _mean(scores: Sequence[Score]) -> str:
    return f"{100 * fmean(score.accuracy for score in scores):.1f} %" if scores else "–"


def _named(classes: Sequence[str]) -> str:
    more = len(classes) - CLASSES
    return ", ".join(classes[:CLASSES]) + (f" and {more} more" if more > 0 else "")


def _auroc(unknown: Unknown | None) -> str:
    return "–" if unknown is None or math.isnan(unknown.auroc) else f"{unknown.auroc:.3f}"


def _rejected(rows: Sequence[Confusion | Unknown]) -> str:
    return f"{100 * fmean(row.abstained / row.total for row in rows):.1f} %"


def _accuracy(steps: Sequence[Step]) -> dict[str, Any]:
    """What is said of the accuracy matrix: all of its tasks in the order of arrival, its curves."""
    seen = (task for step in steps for task in (step.task, *sorted(step.oracle)))
    figures: tuple[Figure, ...] = ("oracle", "routed", "identity")
    means: dict[str, list[float | None]] = {
        figure: [step.mean(figure) for step in steps] for figure in figures
    }
    title = "Mean accuracy over tasks after each step"
    return {
        "learned": tuple(dict.fromkeys(seen)),
        # A single step has no course yet.
        "accuracy_chart": svg(accuracy_curves(means), title) if len(steps) > 1 else None,
    }


def _metrics(summary: Mapping[str, Any]) -> Iterator[tuple[str, float | None, float | None]]:
    """List metrics by name: where the task is told, and where the router finds it."""
    oracle, routed = summary.get("oracle", {}), summary.get("routed", {})
    for name in dict.fromkeys((*oracle, *routed)):
        yield name, oracle.get(name), routed.get(name)
    for name, value in summary.get("routing", {}).items():
        parts = value if isinstance(value, Mapping) else {"": value}
        for task, part in parts.items():
            yield (f"{name}: {task}" if task else name), None, part


def _metric(value: float | None, name: str) -> str:
    if value is None:
        return "–"
    if name in _SHARES:
        return f"{100 * value:.1f} %"
    points = round(100 * value, 1)
    return f"{points:+.1f} points".replace("-", "−") if points else "0.0 points"


def _routing(figures: RoutingFigures) -> dict[str, Any]:
    """What is said of the router."""
    unknown = {row.task: row for row in figures.unknown}
    columns, confusion = _confusion(figures)
    chart = abstention_curves(ALPHAS, figures.known_curve, figures.unknown_curve, figures.alpha)
    return {
        "columns": columns,
        "confusion": confusion,
        "routed_tasks": [
            (row, row.chosen[figures.tasks.index(row.task)], unknown.get(row.task))
            for row in figures.confusion
        ],
        "abstention_chart": svg(chart, "Share of images rejected against alpha"),
    }


def _confusion(figures: RoutingFigures) -> tuple[list[str], list[tuple[Confusion, list[int]]]]:
    """Count images by the task that was chosen: of all tasks, or of those that are found worst.

    Returns:
        Names of columns, and for each task its images by column.
    """
    place = {task: index for index, task in enumerate(figures.tasks)}
    rows, tasks = list(figures.confusion), list(figures.tasks)
    if max(len(rows), len(tasks)) > MOST:
        rows.sort(key=lambda row: row.chosen[place[row.task]] / row.total)
        rows = sorted(rows[:MOST], key=lambda row: place[row.task])
        tasks = [row.task for row in rows]
    others = ["another task"] if len(tasks) < len(figures.tasks) else []
    counted = []
    for row in rows:
        counts = [row.chosen[place[task]] for task in tasks]
        elsewhere = [sum(row.chosen) - sum(counts)] if others else []
        counted.append((row, [*counts, *elsewhere, row.abstained]))
    return [*tasks, *others, "no known task"], counted
