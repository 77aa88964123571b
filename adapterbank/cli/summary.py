"""What tables and ``--json`` say of a version."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from adapterbank.cli import render
from adapterbank.errors import IntegrityError
from adapterbank.text import human_bytes, human_seconds, percent

if TYPE_CHECKING:
    from adapterbank.records import Route
    from adapterbank.registry.store import Registry
    from adapterbank.registry.versions import Version

CHAMPION = "champion"
COLUMNS = (
    "task", ">champion", "method", ">classes", ">test", ">linear probe", ">parameters", ">size",
    ">versions",
)  # fmt: skip


def version_json(version: Version) -> dict[str, Any]:
    """Name a version as every command's JSON does."""
    return {"task": version.task, "version": version.version, "digest": version.digest}


def score_of(metrics: dict[str, Any], *path: str) -> dict[str, int] | None:
    """Find a count in metrics such as ``("linear_probe", "test")``; versions need not have any."""
    from adapterbank.registry import summary

    score = summary.score_of(metrics, *path)
    return None if score is None else asdict(score)


def list_tasks(registry: Registry) -> list[dict[str, Any]]:
    """Describe every task by its champion, or by its number of versions where it has none.

    A version that misses bytes, or whose figures are damaged, is listed with its ``problem``.
    Its tensors are not read: a bank may have a thousand tasks, and ``verify`` is there for that.
    """
    return [_task(registry, task) for task in registry.tasks()]


def print_tasks(rows: list[dict[str, Any]], seconds: dict[str, float] | None = None) -> None:
    """Print the table of tasks.

    Args:
        rows: of :func:`list_tasks`.
        seconds: training time of tasks; a column more.
    """
    columns = COLUMNS if seconds is None else (*COLUMNS, ">trained in")
    cells = []
    for row in rows:
        cell = [
            row["task"],
            "–" if row["version"] is None else str(row["version"]),
            row["method"] or ("damaged" if row["problem"] else "no champion"),
            "–" if row["classes"] is None else str(row["classes"]),
            _percent(row["test"]),
            _percent(row["linear_probe"]),
            _parameters(row["parameters"]),
            human_bytes(row["bytes"]),
            str(row["versions"]),
        ]
        if seconds is not None:
            cell.append(human_seconds(seconds.get(row["task"])))
        cells.append(cell)
    render.table(columns, cells)


def _task(registry: Registry, task: str) -> dict[str, Any]:
    from adapterbank.registry.summary import summarise

    row: dict[str, Any] = {
        "task": task, "version": None, "digest": None, "method": None, "classes": None,
        "test": None, "linear_probe": None, "parameters": None, "bytes": None, "versions": 0,
        "problem": None,
    }  # fmt: skip
    try:
        versions, aliases = registry.overview(task)
        row["versions"] = len(versions)
        if CHAMPION not in aliases:
            return row
        version = versions[aliases[CHAMPION] - 1]
        row |= version_json(version)
        summary = summarise(version)
    except IntegrityError as error:
        return row | {"problem": error.message}
    return row | {
        "method": summary.config.method.name,
        "classes": len(summary.config.classes),
        "test": score_of(summary.metrics, "test"),
        "linear_probe": score_of(summary.metrics, "linear_probe", "test"),
        "parameters": summary.metrics.get("parameters"),
        "bytes": sum(summary.sizes.values()),
    }


def _percent(score: dict[str, int] | None) -> str:
    return "–" if score is None else percent(score["correct"], score["total"])


def _parameters(counts: object) -> str:
    """Show the method's parameters and the head's apart: the head grows with the classes."""
    if not isinstance(counts, dict) or not {"method", "head"} <= counts.keys():
        return "–"
    return f"{counts['method']:,} + {counts['head']:,}"


def route_json(route: Route) -> dict[str, Any]:
    """Return what ``--json`` says of a route."""
    return {
        "outcome": route.outcome,
        "task": route.task,
        "score": route.score,
        "p_value": route.p_value,
        "margin": route.margin,
        "candidates": [{"task": task, "probability": share} for task, share in route.candidates],
        "router": route.router,
    }
