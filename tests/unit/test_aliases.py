"""Moves compare before they swap, history decides, and the file is one that Git can merge."""

from __future__ import annotations

import difflib

import pytest

from adapterbank.errors import ConflictError, InputError, IntegrityError, UnknownName
from adapterbank.records import Reference
from adapterbank.registry.aliases import ANY, add_version, find_version, move_alias, roll_back
from adapterbank.registry.task_record import (
    Stamp,
    TaskRecord,
    dump_record,
    parse_record,
    replay,
)

STAMP = Stamp(actor="ada", reason="because", time="2026-01-02T03:04:05Z")


def _digest(version: int) -> str:
    return f"{version:04x}" * 16


def _record(versions: int) -> TaskRecord:
    record = TaskRecord(task="dtd")
    for version in range(1, versions + 1):
        record = add_version(record, _digest(version), STAMP)
    return record


def _promoted(record: TaskRecord, *versions: int) -> TaskRecord:
    for version in versions:
        record = move_alias(record, "champion", version, ANY, STAMP)
    return record


def test_versions_are_counted_in_order_of_registration() -> None:
    record = _record(3)
    assert [entry.version for entry in record.versions] == [1, 2, 3]
    assert [(e.step, e.action, e.alias, e.to_version) for e in record.history] == [
        (1, "register", None, 1),
        (2, "register", None, 2),
        (3, "register", None, 3),
    ]


def test_a_promotion_is_history_with_who_why_when_and_the_verdict() -> None:
    record = move_alias(_record(1), "champion", 1, None, STAMP, {"accuracy": 0.5, "ok": True})
    event = record.history[-1]
    assert record.aliases == {"champion": 1}
    assert (event.action, event.from_version, event.to_version) == ("promote", None, 1)
    assert (event.actor, event.reason, event.time) == ("ada", "because", STAMP.time)
    assert event.digest == _digest(1)
    assert event.verdict == {"accuracy": 0.5, "ok": True}


def test_promoting_the_champion_keeps_the_previous_one() -> None:
    record = _promoted(_record(3), 1, 3)
    assert record.aliases == {"champion": 3, "previous": 1}


def test_other_aliases_keep_no_previous_one() -> None:
    record = move_alias(_record(2), "challenger", 1, None, STAMP)
    record = move_alias(record, "challenger", 2, 1, STAMP)
    assert record.aliases == {"challenger": 2}


@pytest.mark.parametrize("expected", [None, 1, 3])
def test_a_wrong_expectation_is_a_conflict_that_names_the_holder(expected: int | None) -> None:
    record = _promoted(_record(3), 1, 2)
    with pytest.raises(ConflictError, match=r"dtd@champion is version 2 .*by ada") as caught:
        move_alias(record, "champion", 3, expected, STAMP)
    assert caught.value.exit_code == 5


def test_expecting_a_version_of_an_alias_that_is_not_there_is_a_conflict() -> None:
    with pytest.raises(ConflictError, match="does not exist, expected version 1"):
        move_alias(_record(2), "champion", 2, 1, STAMP)


def test_promoting_what_is_held_already_changes_nothing() -> None:
    record = _promoted(_record(2), 2)
    assert move_alias(record, "champion", 2, 2, STAMP) is record
    assert move_alias(record, "champion", 2, ANY, STAMP) is record


def test_rollbacks_walk_further_back_each_time() -> None:
    record = _promoted(_record(4), 1, 2, 3, 4)
    seen = []
    for _ in range(3):
        record = roll_back(record, "champion", ANY, STAMP)
        seen.append((record.aliases["champion"], record.aliases.get("previous")))
    assert seen == [(3, 2), (2, 1), (1, None)]
    assert [event.action for event in record.history[-3:]] == ["rollback"] * 3
    with pytest.raises(InputError, match="no earlier one"):
        roll_back(record, "champion", ANY, STAMP)


def test_a_promotion_after_a_rollback_goes_back_to_where_it_started() -> None:
    record = roll_back(_promoted(_record(3), 1, 2), "champion", 2, STAMP)
    record = _promoted(record, 3)
    assert record.aliases == {"champion": 3, "previous": 1}
    assert roll_back(record, "champion", 3, STAMP).aliases == {"champion": 1}


def test_a_rollback_compares_too() -> None:
    with pytest.raises(ConflictError, match="is version 2"):
        roll_back(_promoted(_record(2), 1, 2), "champion", 1, STAMP)


def test_an_alias_that_never_was_cannot_be_rolled_back() -> None:
    with pytest.raises(UnknownName, match="challenger"):
        roll_back(_promoted(_record(1), 1), "challenger", ANY, STAMP)


def test_aliases_move_only_to_registered_versions() -> None:
    with pytest.raises(UnknownName, match="version 'dtd@3'"):
        move_alias(_record(2), "champion", 3, ANY, STAMP)


@pytest.mark.parametrize("alias", ["previous", "3", "Champion", "a/b", "", "sha256:ab"])
def test_some_aliases_cannot_be_moved(alias: str) -> None:
    with pytest.raises(InputError):
        move_alias(_record(1), alias, 1, ANY, STAMP)


@pytest.mark.parametrize("text", ["dtd", "dtd@champion", "dtd@2", f"dtd@sha256:{_digest(2)[:6]}"])
def test_all_forms_of_a_reference_find_the_version(text: str) -> None:
    assert find_version(_promoted(_record(3), 2), Reference.parse(text)) == 2


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("dtd@9", "dtd@1, dtd@2, dtd@3"),
        ("dtd@chalenger", "champion"),
        ("dtd@sha256:ffff", "dtd@sha256:0002"),
    ],
)
def test_an_unknown_version_lists_the_known(text: str, hint: str) -> None:
    with pytest.raises(UnknownName, match=hint) as caught:
        find_version(_promoted(_record(3), 2), Reference.parse(text))
    assert caught.value.exit_code == 3


def test_a_prefix_that_two_digests_share_is_refused() -> None:
    record = add_version(_record(1), "0001" * 15 + "0002", STAMP)
    with pytest.raises(InputError, match="short for 2 versions"):
        find_version(record, Reference.parse("dtd@sha256:0001"))


def test_a_record_survives_its_file() -> None:
    record = move_alias(_promoted(_record(3), 1, 2), "b", 1, None, STAMP, {"x": [1, {"y": None}]})
    data = dump_record(record)
    assert parse_record(data, "dtd", where="dtd.json") == record
    assert dump_record(parse_record(data, "dtd", where="dtd.json")) == data
    assert replay(record.history) == record.aliases


def test_a_new_version_and_a_move_are_added_lines() -> None:
    before = _promoted(_record(2), 1, 2)
    after = add_version(before, _digest(3), STAMP)
    diff = [
        line
        for line in difflib.ndiff(
            dump_record(before).decode().splitlines(), dump_record(after).decode().splitlines()
        )
        if line[0] in "+-"
    ]
    assert [line[0] for line in diff] == ["+", "+"]  # the version and its history, nothing else


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"schema": 1', '"schema": 2', "has schema 2"),
        ('"task": "dtd"', '"task": "dtd2"', "about task 'dtd2'"),
        ('"champion": 2', '"champion": 1', "its history says"),
        ('"previous": 1', '"previous": 2', "its history says"),
        ('"version": 2', '"version": 3', "numbers its versions"),
        ('"step": 3', '"step": 4', "steps"),
        ('"digest": "0001', '"digest": "0009', "another digest"),
        ('"actor"', '"author"', "author"),
        ("{\n", "<<<<<<< HEAD\n{\n", "has a merge conflict"),
    ],
    ids=["schema", "task", "alias", "previous", "number", "step", "digest", "key", "merge"],
)
def test_a_file_that_contradicts_itself_is_refused(old: str, new: str, reason: str) -> None:
    text = dump_record(_promoted(_record(2), 1, 2)).decode()
    assert old in text
    with pytest.raises(IntegrityError, match=reason) as caught:
        parse_record(text.replace(old, new, 1).encode(), "dtd", where="aliases/dtd.json")
    assert "aliases/dtd.json" in str(caught.value)
