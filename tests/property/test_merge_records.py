"""Merging the records of two clones: nothing is lost, and nobody's choice is made for them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adapterbank.errors import AdapterBankError
from adapterbank.records import ROUTER, Side
from adapterbank.registry.aliases import (
    ANY,
    add_verdict,
    add_version,
    move_alias,
    retire,
    roll_back,
)
from adapterbank.registry.merge import merge_records, split_conflict
from adapterbank.registry.task_record import PREVIOUS, Stamp, TaskRecord, dump_record, parse_record
from adapterbank.registry.verdicts import Verdict, past_champions

Step = Callable[[TaskRecord, Stamp], TaskRecord]
STAMP = Stamp(actor="who merges", reason="merged", time="9999")


def digest(number: int) -> str:
    return f"{number:064x}"


def register(number: int) -> Step:
    def step(record: TaskRecord, stamp: Stamp) -> TaskRecord:
        known = record.find(digest(number))
        return record if known else add_version(record, digest(number), stamp)

    return step


def verdict_on(number: int | None, step: Any) -> dict[str, Any]:  # noqa: ANN401  # of JSON
    """Return a verdict that names a version wherever one can, and the step before it."""
    named = dict.fromkeys(("version", "champion", "best"), number)
    return named | {"images": {"split": "val", "unstated": [number]}, "over": step}


numbers = st.integers(1, 4)
aliases = st.sampled_from(["champion", "challenger"])
steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(register, st.integers(1, 9)),
    st.builds(lambda a, n: lambda r, s: move_alias(r, a, n, ANY, s), aliases, numbers),
    st.builds(lambda a: lambda r, s: roll_back(r, a, ANY, s), aliases),
    st.builds(lambda n: lambda r, s: add_verdict(r, n, verdict_on(n, len(r.history)), s), numbers),
    st.just(retire),
)
# The time between two steps: several happen in one second, and a clock is late at times.
timed = st.lists(st.tuples(steps, st.integers(-1, 2)), max_size=6)


def follow(record: TaskRecord, plan: list[tuple[Step, int]], actor: str) -> TaskRecord:
    clock = 10 + len(record.history)
    for step, seconds in plan:
        clock += seconds
        with suppress(AdapterBankError):  # a version or a move that there is not
            stamp = Stamp(actor=actor, reason="", time=f"{clock:04}")
            record = step(record, stamp)
    return record


@st.composite
def clones(draw: st.DrawFn) -> tuple[TaskRecord, TaskRecord, TaskRecord]:
    """Draw a record and what two clones made of it."""
    base = follow(TaskRecord(task="dtd"), draw(timed), "base")
    return base, follow(base, draw(timed), "ours"), follow(base, draw(timed), "theirs")


def meant(record: TaskRecord) -> dict[str, str]:
    return {a: record.digest(n) for a, n in record.aliases.items() if a != PREVIOUS}


def both_moved(base: TaskRecord, ours: TaskRecord, theirs: TaskRecord) -> set[str]:
    was, mine, other = meant(base), meant(ours), meant(theirs)
    return {
        alias
        for alias in {*was, *mine, *other}
        if was.get(alias) not in {mine.get(alias), other.get(alias)}
        and mine.get(alias) != other.get(alias)
    }


@given(clones())
def test_a_merge_keeps_every_version_and_verdict_and_contradicts_itself_nowhere(
    drawn: tuple[TaskRecord, TaskRecord, TaskRecord],
) -> None:
    base, ours, theirs = drawn
    assume(ours.versions or theirs.versions)  # an alias file has one
    merged, _ = merge_records(ours, theirs, base, stamp=STAMP, take=Side.OURS)
    assert parse_record(dump_record(merged), "dtd", where="merged") == merged
    digests = {entry.digest for record in (ours, theirs) for entry in record.versions}
    assert {entry.digest for entry in merged.versions} == digests
    refused = [{(e.time, e.actor, e.digest) for e in r.history if e.action == "refuse"} for r in
               (ours, theirs, merged)]  # fmt: skip
    assert refused[0] | refused[1] == refused[2]


@given(clones())
def test_verdicts_name_versions_by_the_numbers_they_have_now(
    drawn: tuple[TaskRecord, TaskRecord, TaskRecord],
) -> None:
    base, ours, theirs = drawn
    merged, _ = merge_records(ours, theirs, base, stamp=STAMP, take=Side.OURS)
    judged = [event for event in merged.history if event.action == "refuse"]
    assert [event.verdict for event in judged] == [
        verdict_on(event.to_version, (event.verdict or {})["over"]) for event in judged
    ]


def test_the_best_champion_of_a_clone_is_the_best_after_a_merge() -> None:
    base = follow(TaskRecord(task="dtd"), [(register(1), 0)], "base")
    ours = follow(base, [(register(2), 0)], "ours")
    promote = Verdict(task="dtd", version=3, champion=2, outcome="promoted", reason="", best=2)
    plan = [(register(3), 5), (register(4), 0), (lambda r, s: move_alias(r, "champion", 3, ANY, s,
            promote.as_json()), 0)]  # fmt: skip
    merged, _ = merge_records(ours, follow(base, plan, "theirs"), base, stamp=STAMP)
    found = [merged.digest(number) for number in past_champions(merged.history)]
    assert found == [digest(3), digest(4)]


@given(clones())
def test_an_alias_means_what_the_clone_that_moved_it_says(
    drawn: tuple[TaskRecord, TaskRecord, TaskRecord],
) -> None:
    base, ours, theirs = drawn
    merged, clashes = merge_records(ours, theirs, base, stamp=STAMP)
    open_ = both_moved(base, ours, theirs)
    assert {clash.alias for clash in clashes} == open_
    was, mine, other, now = map(meant, (base, ours, theirs, merged))
    for alias in {*was, *mine, *other} - open_:
        wanted = other if mine.get(alias) == was.get(alias) else mine
        assert now.get(alias) == wanted.get(alias)


@given(clones(), st.sampled_from(Side))
def test_a_choice_is_kept_and_stands_in_history(
    drawn: tuple[TaskRecord, TaskRecord, TaskRecord], take: Side
) -> None:
    base, ours, theirs = drawn
    merged, clashes = merge_records(ours, theirs, base, stamp=STAMP, take=take)
    taken = meant({Side.OURS: ours, Side.THEIRS: theirs}[take])
    assert clashes == ()
    for alias in both_moved(base, ours, theirs):
        assert meant(merged).get(alias) == taken.get(alias)


@given(clones())
def test_whoever_merges_gets_the_same(drawn: tuple[TaskRecord, TaskRecord, TaskRecord]) -> None:
    base, ours, theirs = drawn
    assume(not both_moved(base, ours, theirs))
    one, _ = merge_records(ours, theirs, base, stamp=STAMP)
    other, _ = merge_records(theirs, ours, base, stamp=STAMP)
    assert one == other


@given(clones())
def test_a_merge_with_what_is_known_changes_nothing(
    drawn: tuple[TaskRecord, TaskRecord, TaskRecord],
) -> None:
    base, ours, theirs = drawn
    assert merge_records(ours, base, base, stamp=STAMP) == (ours, ())
    assert merge_records(base, ours, base, stamp=STAMP) == (ours, ())
    merged, _ = merge_records(ours, theirs, base, stamp=STAMP, take=Side.THEIRS)
    assert merge_records(merged, theirs, theirs, stamp=STAMP) == (merged, ())


def test_without_a_common_ancestor_the_common_beginning_counts() -> None:
    stamp = Stamp(actor="a", reason="", time="1")
    base = move_alias(register(1)(TaskRecord(task="dtd"), stamp), "champion", 1, ANY, stamp)
    later = Stamp(actor="a", reason="", time="2")
    ours = move_alias(register(2)(base, later), "champion", 2, ANY, later)
    theirs = register(3)(base, later)
    merged, clashes = merge_records(ours, theirs, None, stamp=STAMP)
    assert clashes == ()
    assert meant(merged) == meant(ours)


def test_both_champions_are_told() -> None:
    stamp = Stamp(actor="ann", reason="mine", time="1")
    base = TaskRecord(task="dtd")
    ours = move_alias(register(1)(base, stamp), "champion", 1, ANY, stamp)
    other = replace(stamp, actor="bob", reason="his")
    theirs = move_alias(register(2)(base, other), "champion", 1, ANY, other)
    _, (clash,) = merge_records(ours, theirs, base, stamp=STAMP)
    assert str(clash) == (
        f"dtd@champion was moved by both: ours is sha256:{digest(1)[:12]} (promote by ann at 1:"
        f" mine), theirs is sha256:{digest(2)[:12]} (promote by bob at 1: his)"
    )


def test_nobody_is_asked_about_the_router_which_follows_from_the_champions() -> None:
    stamp = Stamp(actor="a", reason="", time="1")
    base = TaskRecord(task=ROUTER)
    ours = move_alias(register(1)(base, stamp), "champion", 1, ANY, stamp)
    theirs = move_alias(register(2)(base, stamp), "champion", 1, ANY, stamp)
    merged, clashes = merge_records(ours, theirs, base, stamp=STAMP)
    assert clashes == ()
    assert merged.aliases["champion"] == 2


@pytest.mark.parametrize("base", [b"", b"||||||| before\n0\n"])
def test_both_sides_of_a_marked_file_are_found(base: bytes) -> None:
    marked = b"a\n<<<<<<< ours\n1\n" + base + b"=======\n2\n3\n>>>>>>> theirs\nz\n"
    assert split_conflict(marked) == (b"a\n1\nz\n", b"a\n2\n3\nz\n")
