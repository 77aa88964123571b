"""The section of the report about what was done: versions, moves and verdicts of each task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adapterbank.report.html import Html, join, tag
from adapterbank.report.page_tables import facts, moment, plain_table, section
from adapterbank.text import count, percent

if TYPE_CHECKING:
    from adapterbank.registry.task_record import Event
    from adapterbank.report.overview import TaskView

_OPEN = 200  # events of all tasks that are unfolded without being asked for
_CLASSES = 30  # that are named
_SAID = frozenset({"task", "version", "champion", "outcome", "reason", "data"})  # in other columns


def histories(tasks: Sequence[TaskView], router: Sequence[Event]) -> Html:
    """Show everything that was done to each task and to the router, newest first."""
    count = len(router) + sum(len(view.history) for view in tasks)
    shown = "open" if count <= _OPEN else None
    parts = [
        tag(
            "details", tag("summary", _title(view)), _about(view), _events(view.history), open=shown
        )
        for view in tasks
    ]
    if router:
        parts.append(tag("details", tag("summary", "the router"), _events(router), open=shown))
    return section("Versions and verdicts", *parts)


def _title(view: TaskView) -> str:
    champion = view.aliases.get("champion")
    state = "no champion" if champion is None else f"champion {champion}"
    return f"{view.task}: {count(view.versions, 'version')}, {state}"


def _events(history: Sequence[Event]) -> Html:
    columns = (">step", "=time", "action", "version", "by", "~reason", "~verdict")
    return plain_table(columns, [_row(event) for event in reversed(history)], wide=True)


def _about(view: TaskView) -> Html:
    one = view.champion
    if one is None:
        return facts(("problem", view.problem)) if view.problem else join()
    names = ", ".join(one.classes[:_CLASSES])
    more = len(one.classes) - _CLASSES
    return facts(
        ("images", one.data),
        ("classes", f"{names} and {more} more" if more > 0 else names),
        ("digest", tag("code", one.digest)),
    )


def _row(event: Event) -> list[Html | str]:
    action = event.action if event.alias is None else f"{event.action} {event.alias}"
    if event.alias is None:
        moved = f"{event.to_version}"
    else:
        moved = f"{event.from_version or '–'} → {event.to_version or '–'}"
    verdict = event.verdict or {}
    outcome = str(verdict.get("outcome", ""))
    named = outcome if outcome in {"promoted", "refused"} else None
    words: list[Html | str] = [tag("span", outcome, class_=named)] if outcome else []
    told = "; ".join(verdict_words(verdict))
    said = str(verdict.get("reason", ""))
    parts = [part for part in (said if said != event.reason else "", told) if part]
    words += [f"{': ' if outcome else ''}{'; '.join(parts)}"] if parts else []
    time = moment(event.time)
    return [str(event.step), time, action, moved, event.actor, event.reason, join(*words)]


def verdict_words(verdict: Mapping[str, Any]) -> Iterator[str]:
    """Say the numbers of a verdict, whatever a release that wrote it had judged by."""
    for name, value in verdict.items():
        if name in _SAID or value is None:
            continue
        yield from _words(name.replace("_", " "), value)


def _words(name: str, value: object) -> Iterator[str]:
    match value:
        case {"correct": int(correct), "total": int(total)}:
            yield f"{name} {correct}/{total} ({percent(correct, total)})"
        case Mapping():
            for key, item in value.items():
                if item is not None:
                    yield from _words(f"{name} {str(key).replace('_', ' ')}", item)
        case float():
            yield f"{name} {value:.4g}"
        case list():
            parts = (f"{one:.4g}" if isinstance(one, float) else str(one) for one in value)
            yield f"{name} {', '.join(parts)}"
        case _:
            yield f"{name} {value}"
