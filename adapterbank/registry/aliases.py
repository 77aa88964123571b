"""The moves of a task's record, as pure functions from one record to the next.

A move compares before it swaps: whoever read the record before somebody else moved the alias gets
``ConflictError`` instead of undoing the other's work. ``Registry`` runs these under its lock.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias

from adapterbank.errors import ConflictError, InputError, UnknownName
from adapterbank.records import Reference, check_alias_name, check_task_name
from adapterbank.registry.task_record import (
    CHAMPION,
    PREVIOUS,
    REFUSE,
    RETIRE,
    Event,
    Registration,
    Stamp,
    TaskRecord,
    is_retired,
    replay,
    standing_moves,
)


class _Any(enum.Enum):
    ANY = "any version or none"


ANY: Final = _Any.ANY
"""Stands for "whatever the alias means now": skips the comparison of a compare-and-swap."""

Expected: TypeAlias = int | Literal[_Any.ANY] | None
"""The version a caller believes an alias has; None: that it does not exist yet."""


def as_reference(ref: str | Reference) -> Reference:
    """Parse a reference, or check one that was built by hand: its task becomes a path.

    Raises:
        InputError: it is none.
    """
    if isinstance(ref, str):
        return Reference.parse(ref)
    if not isinstance(ref, Reference):
        raise InputError(f"expected a reference such as 'dtd@3', got a {type(ref).__name__}")
    check_task_name(ref.task)
    return Reference.parse(str(ref))  # an empty digest would be short for any version


def find_version(record: TaskRecord, reference: Reference) -> int:
    """Return the number of the version a reference means.

    Raises:
        InputError: several versions share the digest prefix.
        UnknownName: no such version or alias.
    """
    if reference.version is not None:
        record.digest(reference.version)
        return reference.version
    if reference.digest is not None:
        return _find_digest(record, reference.digest)
    alias = reference.alias or CHAMPION
    if alias not in record.aliases and is_retired(record):
        raise _retired(record, alias)
    if alias not in record.aliases:
        raise UnknownName(
            "alias",
            f"{record.task}@{alias}",
            (f"{record.task}@{other}" for other in record.aliases),
            fix=_promotion(record.task, len(record.versions), alias),
        )
    return record.aliases[alias]


def add_version(record: TaskRecord, digest: str, stamp: Stamp) -> TaskRecord:
    """Register ``digest`` under the next number."""
    version = len(record.versions) + 1
    registration = Registration(version=version, digest=digest)
    record = replace(record, versions=(*record.versions, registration))
    return _with_event(record, "register", None, None, (version, digest), stamp)


def add_verdict(
    record: TaskRecord, version: int, verdict: Mapping[str, Any], stamp: Stamp
) -> TaskRecord:
    """Keep a verdict that refused ``version``; no alias moves.

    Raises:
        UnknownName: there is no such version.
    """
    target = (version, record.digest(version))
    return _with_event(record, REFUSE, None, None, target, stamp, verdict)


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
    _check_alias(alias)
    digest = record.digest(version)
    current = record.aliases.get(alias)
    _compare(record, alias, expected)
    if current == version:
        return record
    return _with_event(record, "promote", alias, current, (version, digest), stamp, verdict)


def roll_back(record: TaskRecord, alias: str, expected: Expected, stamp: Stamp) -> TaskRecord:
    """Move ``alias`` back to what it meant before its last move that still stands.

    Raises:
        ConflictError: it does not mean ``expected``.
        InputError: it never meant anything else.
        UnknownName: there is no such alias.
    """
    _check_alias(alias)
    _compare(record, alias, expected)
    current = record.aliases.get(alias)
    if current is None:
        raise UnknownName(
            "alias", f"{record.task}@{alias}", (f"{record.task}@{a}" for a in record.aliases)
        )
    stack = standing_moves(record.history)[alias]
    if len(stack) < 2:
        raise InputError(
            f"{record.task}@{alias} is version {current} and has no earlier one to go back to",
            fix=f"adapterbank history {record.task}",
        )
    target = (stack[-2], record.digest(stack[-2]))
    return _with_event(record, "rollback", alias, current, target, stamp)


def retire(record: TaskRecord, stamp: Stamp) -> TaskRecord:
    """Take all aliases of a task away; a task that never had one is marked all the same.

    Returns:
        the next record, or ``record`` itself where the task is retired already.
    """
    if not record.versions or (is_retired(record) and not record.aliases):
        return record
    numbers = dict[str, int | None](record.aliases)
    numbers.pop(PREVIOUS, None)  # goes by itself
    last = len(record.versions)
    for alias, number in sorted(numbers.items()) if numbers else [(CHAMPION, None)]:
        target = (None, record.digest(number or last))
        record = _with_event(record, RETIRE, alias, number, target, stamp)
    return record


def _check_alias(alias: str) -> None:
    check_alias_name(alias)
    if alias == PREVIOUS:
        raise InputError(
            f"{PREVIOUS!r} always is what a rollback would bring back; it cannot be moved itself",
            fix="adapterbank rollback TASK",
        )


def _retired(record: TaskRecord, alias: str) -> UnknownName:
    removal = next(event for event in reversed(record.history) if event.action == RETIRE)
    served = [e.from_version for e in record.history if e.action == RETIRE and e.alias == alias]
    number = next((n for n in reversed(served) if n is not None), len(record.versions))
    reason = f": {removal.reason}" if removal.reason else ""
    return UnknownName(
        "alias",
        f"{record.task}@{alias}",
        why=f"The task was removed by {removal.actor} at {removal.time}{reason}; its versions are"
        " kept",
        fix=_promotion(record.task, number, alias),
    )


def _promotion(task: str, number: int, alias: str) -> str:
    """Return the command that lets an alias mean a version, if it is one that can be moved."""
    try:
        _check_alias(alias)
    except InputError:
        return f"adapterbank history {task}, which has the versions' numbers"
    return f"adapterbank promote {task}@{number}" + (
        "" if alias == CHAMPION else f" --alias {alias}"
    )


def _find_digest(record: TaskRecord, prefix: str) -> int:
    matches = [entry for entry in record.versions if entry.digest.startswith(prefix)]
    if len(matches) > 1:
        listed = ", ".join(f"{e.digest[:12]} (version {e.version})" for e in matches[:5])
        raise InputError(
            f"{record.task}@sha256:{prefix} is short for {len(matches)} versions: {listed}",
            fix="give more digits, or the version's number",
        )
    if not matches:
        raise UnknownName(
            "version",
            f"{record.task}@sha256:{prefix}",
            (f"{record.task}@sha256:{entry.digest[:12]}" for entry in record.versions),
            fix=f"adapterbank history {record.task}",
        )
    return matches[0].version


def _compare(record: TaskRecord, alias: str, expected: Expected) -> None:
    current = record.aliases.get(alias)
    if expected is ANY or current == expected:
        return
    believed = "no version yet" if expected is None else f"version {expected}"
    if current is None:
        state = "does not exist"
    else:
        last = next(e for e in reversed(record.history) if e.alias == alias)
        state = (
            f"is version {current} (sha256:{record.digest(current)[:12]}, {last.action} by"
            f" {last.actor} at {last.time})"
        )
    raise ConflictError(
        f"{record.task}@{alias} {state}, expected {believed}; nothing was moved",
        fix=f"adapterbank history {record.task}",
    )


def _with_event(
    record: TaskRecord,
    action: str,
    alias: str | None,
    current: int | None,
    target: tuple[int | None, str],
    stamp: Stamp,
    verdict: Mapping[str, Any] | None = None,
) -> TaskRecord:
    version, digest = target
    event = Event(
        step=len(record.history) + 1,
        action=action,
        alias=alias,
        from_version=current,
        to_version=version,
        digest=digest,
        actor=stamp.actor,
        reason=stamp.reason,
        time=stamp.time,
        verdict=None if verdict is None else dict(verdict),
    )
    history = (*record.history, event)
    return replace(record, aliases=replay(history), history=history)
