"""The record of one task: its versions, what each alias means, and every move there ever was.

Pure functions from a record to the next one; ``Registry`` reads and writes them under its lock.
The file ``aliases/<task>.json`` has the newest entry first, as ``git log`` has, so that an
addition is one added line.

History decides: what an alias means, and what a rollback brings back, can be computed from it.
Moves of an alias make a stack. A rollback pops it, so repeated rollbacks walk further back
instead of going to and fro; anything else pushes. ``previous`` is not moved by anybody: it always
is what a rollback of ``champion`` would bring back.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import ConfigDict, Field, JsonValue
from pydantic.dataclasses import dataclass

from adapterbank.errors import ConflictError, InputError, IntegrityError, UnknownName
from adapterbank.registry.backbone import Sha256
from adapterbank.registry.documents import dump_document, parse_document

__all__ = [
    "ANY",
    "CHAMPION",
    "PREVIOUS",
    "Entry",
    "Event",
    "Expected",
    "Stamp",
    "TaskRecord",
    "add_version",
    "dump_record",
    "move_alias",
    "parse_record",
    "replay",
    "roll_back",
]

CHAMPION: Final = "champion"
PREVIOUS: Final = "previous"
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_STRICT = ConfigDict(strict=True, extra="forbid", validate_by_name=True, allow_inf_nan=False)
Number = Annotated[int, Field(ge=1)]


class _Any(enum.Enum):
    ANY = "any version or none"


ANY: Final = _Any.ANY
"""Stands for "whatever the alias means now": skips the comparison of a compare-and-swap."""

Expected: TypeAlias = int | Literal[_Any.ANY] | None
"""The version a caller believes an alias has; None: that it does not exist yet."""


@plain_dataclass(frozen=True, kw_only=True)
class Stamp:
    """Who did something, why, and when (ISO 8601, UTC)."""

    actor: str
    reason: str
    time: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Entry:
    """A version of a task: its number, counted in order of registration, and its digest."""

    version: Number
    digest: Sha256


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Event:
    """One line of history. ``step`` gives the order; clocks jump, so ``time`` does not."""

    step: Number
    action: Annotated[str, Field(pattern=r"^[a-z][a-z-]*$")]
    alias: str | None
    from_version: Annotated[Number | None, Field(alias="from")]
    to_version: Annotated[Number | None, Field(alias="to")]
    digest: Sha256
    actor: str
    reason: str
    time: str
    verdict: dict[str, JsonValue] | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TaskRecord:
    """All that is known of a task, oldest entries first."""

    schema: Literal[1] = 1
    task: str
    versions: tuple[Entry, ...] = ()
    aliases: dict[str, Number] = Field(default_factory=dict)
    history: tuple[Event, ...] = ()

    def digest(self, version: int) -> str:
        """Return the digest of a version.

        Raises:
            UnknownName: no version has this number.
        """
        if not 1 <= version <= len(self.versions):
            raise UnknownName(
                f"version of task {self.task!r}",
                str(version),
                (str(entry.version) for entry in self.versions),
                fix=f"adapterbank history {self.task}",
            )
        return self.versions[version - 1].digest

    def find(self, digest: str) -> int | None:
        """Return the number of the version with exactly this digest, if it is registered."""
        return next((e.version for e in self.versions if e.digest == digest), None)


def parse_record(data: bytes, task: str, *, where: str) -> TaskRecord:
    """Read an alias file.

    Raises:
        IntegrityError: it is no alias file of a known schema, or contradicts itself.
    """
    fix = f"git checkout -- registry/aliases/{task}.json"
    stored = parse_document(data, TaskRecord, where=where, fix=fix)
    record = replace(stored, versions=stored.versions[::-1], history=stored.history[::-1])
    problem = _contradiction(record, task)
    if problem is not None:
        raise IntegrityError(f"{where} {problem}", fix=fix)
    return record


def dump_record(record: TaskRecord) -> bytes:
    """Write an alias file: newest entries first, one a line."""
    return dump_document(
        {
            "schema": record.schema,
            "task": record.task,
            "versions": [
                {"version": entry.version, "digest": entry.digest}
                for entry in reversed(record.versions)
            ],
            "aliases": dict(sorted(record.aliases.items())),
            "history": [_event_line(event) for event in reversed(record.history)],
        }
    )


def add_version(record: TaskRecord, digest: str, stamp: Stamp) -> TaskRecord:
    """Register ``digest`` under the next number."""
    version = len(record.versions) + 1
    event = _event(record, "register", None, None, (version, digest), stamp)
    return replace(
        record,
        versions=(*record.versions, Entry(version=version, digest=digest)),
        history=(*record.history, event),
    )


def move_alias(
    record: TaskRecord,
    alias: str,
    version: int,
    expected: Expected,
    stamp: Stamp,
    verdict: Mapping[str, Any] | None = None,
) -> TaskRecord:
    """Move ``alias`` to ``version`` if it still means ``expected``.

    Returns:
        the next record, or ``record`` itself where the alias already means ``version``.

    Raises:
        ConflictError: it means something else; the message says what and since when.
        InputError: the alias is not one that can be moved.
        UnknownName: there is no such version.
    """
    check_alias(alias)
    digest = record.digest(version)
    held = record.aliases.get(alias)
    _compare(record, alias, expected)
    if held == version:
        return record
    event = _event(record, "promote", alias, held, (version, digest), stamp, verdict)
    return _with_event(record, event)


def roll_back(record: TaskRecord, alias: str, expected: Expected, stamp: Stamp) -> TaskRecord:
    """Move ``alias`` back to what it meant before its last move that still stands.

    Raises:
        ConflictError: it does not mean ``expected``.
        InputError: it never meant anything else.
        UnknownName: there is no such alias.
    """
    check_alias(alias)
    _compare(record, alias, expected)
    held = record.aliases.get(alias)
    if held is None:
        raise UnknownName(f"alias of task {record.task!r}", alias, record.aliases)
    stack = _stack(record.history, alias)
    if len(stack) < 2:
        raise InputError(
            f"{record.task}@{alias} is version {held} and has no earlier one to go back to",
            fix=f"adapterbank history {record.task}",
        )
    target = stack[-2]
    return _with_event(
        record, _event(record, "rollback", alias, held, (target, record.digest(target)), stamp)
    )


def replay(history: Iterable[Event]) -> dict[str, int]:
    """Compute from history what every alias must mean."""
    events = tuple(history)
    aliases = {}
    for alias in sorted({event.alias for event in events if event.alias is not None}):
        stack = _stack(events, alias)
        if stack:
            aliases[alias] = stack[-1]
        if alias == CHAMPION and len(stack) > 1:
            aliases[PREVIOUS] = stack[-2]
    return aliases


def check_alias(alias: str) -> None:
    """Check that ``alias`` is one people may move.

    Raises:
        InputError: a name no reference could have, or ``previous``.
    """
    if not _ALIAS.fullmatch(alias):
        raise InputError(
            f"{alias!r} is not an alias: use 1 to 32 of a-z, 0-9, '-' and '_', starting with a"
            " letter"
        )
    if alias == PREVIOUS:
        raise InputError(
            f"{PREVIOUS!r} always is what a rollback would bring back; it cannot be moved itself",
            fix="adapterbank rollback TASK",
        )


def _stack(history: Iterable[Event], alias: str) -> list[int]:
    """Return the moves of ``alias`` that still stand, oldest first."""
    stack: list[int] = []
    for event in history:
        if event.alias != alias:
            continue
        if event.to_version is None:
            stack.clear()
        elif event.action == "rollback":
            del stack[-1:]
        else:
            stack.append(event.to_version)
    return stack


def _compare(record: TaskRecord, alias: str, expected: Expected) -> None:
    held = record.aliases.get(alias)
    if expected is ANY or held == expected:
        return
    believed = "no version yet" if expected is None else f"version {expected}"
    if held is None:
        found = "does not exist"
    else:
        last = next(e for e in reversed(record.history) if e.alias == alias)
        found = (
            f"is version {held} (sha256:{record.digest(held)[:12]}, {last.action} by"
            f" {last.actor} at {last.time})"
        )
    raise ConflictError(
        f"{record.task}@{alias} {found}, expected {believed}; nothing was moved",
        fix=f"adapterbank history {record.task}",
    )


def _event(
    record: TaskRecord,
    action: str,
    alias: str | None,
    held: int | None,
    target: tuple[int, str],
    stamp: Stamp,
    verdict: Mapping[str, Any] | None = None,
) -> Event:
    version, digest = target
    return Event(
        step=len(record.history) + 1,
        action=action,
        alias=alias,
        from_version=held,
        to_version=version,
        digest=digest,
        actor=stamp.actor,
        reason=stamp.reason,
        time=stamp.time,
        verdict=None if verdict is None else dict(verdict),
    )


def _with_event(record: TaskRecord, event: Event) -> TaskRecord:
    history = (*record.history, event)
    return replace(record, aliases=replay(history), history=history)


def _event_line(event: Event) -> dict[str, Any]:
    line: dict[str, Any] = {
        "step": event.step,
        "action": event.action,
        "alias": event.alias,
        "from": event.from_version,
        "to": event.to_version,
        "digest": event.digest,
        "actor": event.actor,
        "reason": event.reason,
        "time": event.time,
    }
    return line if event.verdict is None else {**line, "verdict": event.verdict}


def _contradiction(record: TaskRecord, task: str) -> str | None:
    """Say how a record contradicts itself, as a hand-made merge may leave it; None if it does not.

    That aliases follow from history is for ``verify`` to report, not a reason to stop serving.
    """
    numbers = [entry.version for entry in record.versions]
    digests = {entry.digest for entry in record.versions}
    steps = [event.step for event in record.history]
    lost = sorted(a for a, version in record.aliases.items() if version > len(numbers))
    if record.task != task:
        return f"is about task {record.task!r}, expected {task!r}"
    if numbers != list(range(1, len(numbers) + 1)):
        return f"numbers its versions {numbers}, expected 1 to {len(numbers)}, newest first"
    if len(digests) != len(numbers):
        return "gives one digest two numbers"
    if steps != list(range(1, len(steps) + 1)):
        return f"has history steps that are not 1 to {len(steps)}, newest first"
    if lost:
        return f"has aliases of versions that do not exist: {', '.join(lost)}"
    return None
