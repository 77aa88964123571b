"""Two records of one task, from two clones, made one: every event of both, in order of time.

Digests say what is meant: the numbers of versions, which both clones gave away, are counted anew.
Where both moved one alias to different versions somebody has to choose, and the choice is an event.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from adapterbank.records import ROUTER, Side
from adapterbank.registry.task_record import (
    PREVIOUS,
    RETIRE,
    Event,
    Registration,
    Stamp,
    TaskRecord,
    apply_move,
    replay,
)
from adapterbank.registry.verdicts import renumber_verdict


@dataclass(frozen=True, kw_only=True)
class Clash:
    """An alias that two clones moved to different versions; None where one took it away."""

    task: str
    alias: str
    ours: Event
    theirs: Event

    def __str__(self) -> str:
        return (
            f"{self.task}@{self.alias} was moved by both: ours is {_told(self.ours)}, theirs is"
            f" {_told(self.theirs)}"
        )


def merge_records(
    ours: TaskRecord,
    theirs: TaskRecord,
    base: TaskRecord | None,
    *,
    stamp: Stamp,
    take: Side | None = None,
) -> tuple[TaskRecord, tuple[Clash, ...]]:
    """Merge two records of a task.

    Args:
        ours: one of them.
        theirs: the other.
        base: the record both came from, if it is known.
        stamp: who merges, why and when.
        take: whose aliases count where both moved one; nobody's if None.

    Returns:
        the merged record, and what has to be chosen before it may be used. The router's never
        has: it is a function of the champions, so the newer version counts.
    """
    if base is None:
        pairs = zip(ours.history, theirs.history, strict=False)
        common = takewhile(lambda pair: pair[0] == pair[1], pairs)
        base = _rebuild(ours.task, [event for event, _ in common])
    merged = _rebuild(ours.task, _union(ours.history, theirs.history, base.history))
    retold = (_retold(ours, merged), _retold(theirs, merged))
    merged = _rebuild(ours.task, _union(*retold, base.history))
    sides = {Side.OURS: _meant(ours), Side.THEIRS: _meant(theirs)}
    before, clashes = _meant(base), list[Clash]()
    for alias in sorted({*sides[Side.OURS], *sides[Side.THEIRS], *before}):
        a, b = sides[Side.OURS].get(alias), sides[Side.THEIRS].get(alias)
        wanted = b if a == before.get(alias) else a
        if a != b and before.get(alias) not in {a, b}:
            if ours.task == ROUTER:
                wanted = max((a, b), key=lambda digest: merged.find(digest or "") or 0)
            elif take is None:
                clashes.append(
                    Clash(
                        task=ours.task, alias=alias,
                        ours=_last(ours, alias), theirs=_last(theirs, alias),
                    )
                )  # fmt: skip
                continue
            else:
                wanted = sides[take].get(alias)
        merged = _moved(merged, alias, wanted, stamp)
    return merged, tuple(clashes)


def split_conflict(data: bytes) -> tuple[bytes, bytes]:
    """Return both sides of a file in which Git left the marks of a conflict."""
    sides: tuple[list[bytes], list[bytes]] = ([], [])
    places: tuple[list[bytes], ...] = sides
    for line in data.splitlines(keepends=True):
        match line[:7]:
            case b"<<<<<<<":
                places = sides[:1]
            case b"|||||||":
                places = ()
            case b"=======":
                places = sides[1:]
            case b">>>>>>>":
                places = sides
            case _:
                for place in places:
                    place.append(line)
    return b"".join(sides[0]), b"".join(sides[1])


def _union(ours: Sequence[Event], theirs: Sequence[Event], base: Sequence[Event]) -> list[Event]:
    """Take all events of both, each side's in its own order, the older one first.

    A move that the common ancestor has and a side has not is one that an earlier merge left out as
    nothing new, or that was taken back.
    """
    sides = [_keyed(ours), _keyed(theirs)]
    kept, dropped = sides[0] | sides[1], sides[0].keys() ^ sides[1].keys()
    dropped &= {key for key, event in _keyed(base).items() if event.action != "register"}
    queues = [{key: side[key] for key in side if key not in dropped} for side in sides]
    events = list[Event]()
    while any(queues):
        heads = [next(iter(queue)) for queue in queues if queue]
        # An event that both have waits for all that comes before it in either.
        free = [key for key in heads if heads.count(key) == sum(key in queue for queue in queues)]
        key = min(free or heads, key=lambda name: (kept[name].time, repr(name)))
        events.append(kept[key])
        for queue in queues:
            queue.pop(key, None)
    return events


def _keyed(history: Iterable[Event]) -> dict[object, Event]:
    """Name each event by what no merge changes, and by which of its equals it is."""
    counts, keyed = Counter[object](), dict[object, Event]()
    for event in history:
        action = "promote" if event.action == "rollback" else event.action
        digest = None if event.action == RETIRE else event.digest
        key = (event.time, action, event.alias, digest, event.actor, event.reason)
        counts[key] += 1
        keyed[key, counts[key]] = event
    return keyed


def _retold(side: TaskRecord, merged: TaskRecord) -> list[Event]:
    """Return a side's events, whose verdicts name versions and steps as the merged record does."""
    digests, keyed = {e.digest: e.version for e in merged.versions}, _keyed(merged.history)
    numbers = {entry.version: digests[entry.digest] for entry in side.versions}
    steps = {e.step: keyed[key].step for key, e in _keyed(side.history).items() if key in keyed}
    return [
        event
        if event.verdict is None
        else replace(event, verdict=renumber_verdict(event.verdict, numbers, steps))
        for event in side.history
    ]


def _rebuild(task: str, events: Iterable[Event]) -> TaskRecord:
    """Make the record that these events give; what says nothing new is left out."""
    numbers, history = dict[str, int](), list[Event]()
    stacks = defaultdict[str | None, list[int]](list)
    for event in events:
        stack, action = stacks[event.alias], event.action
        current, digest = stack[-1] if stack else None, event.digest
        if action == "register" and digest not in numbers:
            number = numbers[digest] = len(numbers) + 1
        elif action == RETIRE:
            number = None
            digest = {n: name for name, n in numbers.items()}[current or len(numbers)]
        else:
            number = numbers[digest]
            if action == "register" or (event.alias is not None and number == current):
                continue
            if action == "rollback" and (len(stack) < 2 or stack[-2] != number):
                action = "promote"  # what stood below it is another version now
        made = replace(
            event, step=len(history) + 1, action=action, digest=digest, to_version=number,
            from_version=None if event.alias is None else current,
        )  # fmt: skip
        history.append(made)
        if event.alias is not None:
            apply_move(stack, made)
    versions = tuple(Registration(version=n, digest=name) for name, n in numbers.items())
    return TaskRecord(task=task, versions=versions, aliases=replay(history), history=tuple(history))


def _moved(record: TaskRecord, alias: str, digest: str | None, stamp: Stamp) -> TaskRecord:
    """Let an alias mean a version; nothing changes where it does."""
    current = record.aliases.get(alias)
    number = None if digest is None else record.find(digest)
    if number == current:
        return record
    event = Event(
        step=len(record.history) + 1, action="promote" if number else RETIRE, alias=alias,
        from_version=current, to_version=number, digest=record.digest(number or current or 1),
        actor=stamp.actor, reason=stamp.reason, time=stamp.time,
    )  # fmt: skip
    return _rebuild(record.task, [*record.history, event])


def _meant(record: TaskRecord) -> Mapping[str, str]:
    """Return the digest that each alias means; ``previous`` follows from the others."""
    aliases = record.aliases.items()
    return {alias: record.digest(number) for alias, number in aliases if alias != PREVIOUS}


def _last(record: TaskRecord, alias: str) -> Event:
    return next(event for event in reversed(record.history) if event.alias == alias)


def _told(event: Event) -> str:
    what = "none" if event.to_version is None else f"sha256:{event.digest[:12]}"
    reason = f": {event.reason}" if event.reason else ""
    return f"{what} ({event.action} by {event.actor} at {event.time}{reason})"
