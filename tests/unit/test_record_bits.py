"""An alias file decides what is served: no flipped bit in one changes that unnoticed.

What can survive is the free text of the past: who, why, when, and what a gate said. Git, which owns
these files, has a hash over that; nothing is served by it.
"""

from __future__ import annotations

from typing import Any

import pytest

from adapterbank.errors import IntegrityError
from adapterbank.registry.aliases import (
    ANY,
    add_verdict,
    add_version,
    move_alias,
    retire,
    roll_back,
)
from adapterbank.registry.task_record import (
    Stamp,
    TaskRecord,
    dump_record,
    is_retired,
    parse_record,
    standing_moves,
)
from tests.damage import flipped

STAMP = Stamp(actor="ada", reason="because", time="2026-01-02T03:04:05Z")
FREE = {"actor", "reason", "time", "verdict"}


def _served() -> TaskRecord:
    """Record every kind of move, with a stack in which going back and forth looks alike."""
    record = TaskRecord(task="dtd")
    for version in (1, 2, 3):
        record = add_version(record, f"{version:04x}" * 16, STAMP)
    for version in (1, 2, 1, 2):
        record = move_alias(record, "champion", version, ANY, STAMP, {"ok": True, "gain": 0.5})
    record = roll_back(record, "champion", 2, STAMP)
    record = add_verdict(record, 3, {"ok": False}, STAMP)
    return move_alias(record, "challenger", 3, None, STAMP)


def _retired() -> TaskRecord:
    return add_verdict(retire(_served(), STAMP), 3, {"ok": False}, STAMP)


def _revived() -> TaskRecord:
    return move_alias(_retired(), "champion", 3, None, STAMP)


RECORDS = {"served": _served(), "retired": _retired(), "revived": _revived()}


def _meaning(record: TaskRecord) -> tuple[Any, ...]:
    """All that anything is decided by."""
    events = [{k: v for k, v in e.as_json().items() if k not in FREE} for e in record.history]
    stacks = [standing_moves(record.history).get(alias, []) for alias in ("champion", "challenger")]
    return record.task, record.versions, record.aliases, stacks, is_retired(record), events


@pytest.mark.parametrize("kind", RECORDS)
def test_no_flipped_bit_of_an_alias_file_changes_what_it_means(kind: str) -> None:
    record = RECORDS[kind]
    sound, meaning = dump_record(record), _meaning(record)
    assert _meaning(parse_record(sound, "dtd", where="dtd.json")) == meaning
    refused = 0
    for position in range(len(sound)):
        for bit in range(8):
            try:
                told = parse_record(flipped(sound, position, bit), "dtd", where="dtd.json")
            except IntegrityError as error:
                assert "dtd.json" in error.message  # noqa: PT017  # most are refused, not all
                refused += 1
            else:
                assert _meaning(told) == meaning, sound[position - 40 : position + 9]
    assert refused > 0.9 * 8 * len(sound)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"action": "rollback"', '"action": "rollbacj"', "step 8 that cannot follow"),
        ('"action": "retire"', '"action": "retird"', "cannot follow"),
        ('"action": "refuse"', '"action": "approve"', "cannot follow"),
        ('"register", "alias": null', '"register", "alias": "b"', "cannot follow"),
        ('"from": 2, "to": 1', '"from": 3, "to": 1', "from 3 to 1"),
        ('"from": null, "to": 3, "digest"', '"from": 2, "to": 3, "digest"', "cannot follow"),
        ('"from": 1, "to": null', '"from": 2, "to": null', "version 2 another digest"),
        ('"to": null, "digest": "0001', '"to": null, "digest": "0002', "version 1 another digest"),
    ],
    ids=["rollback", "retire", "word", "alias", "from", "first", "retired", "digest"],
)
def test_a_history_that_cannot_have_happened_is_refused(old: str, new: str, reason: str) -> None:
    text = dump_record(RECORDS["revived"]).decode()
    assert old in text
    with pytest.raises(IntegrityError, match=reason) as caught:
        parse_record(text.replace(old, new, 1).encode(), "dtd", where="aliases/dtd.json")
    assert "aliases/dtd.json" in caught.value.message
    assert caught.value.fix == "git checkout HEAD -- registry/aliases/dtd.json"


@pytest.mark.parametrize("kind", RECORDS)
def test_an_alias_file_cut_anywhere_is_refused(kind: str) -> None:
    sound = dump_record(RECORDS[kind])
    for length in range(len(sound) - 1):  # the last byte ends the line
        with pytest.raises(IntegrityError, match=r"dtd\.json"):
            parse_record(sound[:length], "dtd", where="dtd.json")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[" * 1_000_000,
        b'{"schema": 1, "task": "dtd", "aliases": ' + b'{"a":' * 100_000,
        b'{"schema": 1, "task": "dtd", "history": [' + b"1," * 1_000_000 + b"1]}",
        b'{"schema": 1, "task": "dtd", "versions": [{"version": ' + b"9" * 5000 + b"}]}",
        b'{"schema": ' + b"9" * 100_000 + b', "task": "dtd"}',
        b'{"schema": 1, "task": "\xd1\x82"}',
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
    ],
    ids=["empty", "null", "deep", "deeper", "long", "number", "schema", "letter", "16", "mark"],
)
def test_json_that_is_deep_or_huge_is_refused_as_any_other(data: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"dtd\.json") as caught:
        parse_record(data, "dtd", where="dtd.json")
    assert len(caught.value.message) < 1000
