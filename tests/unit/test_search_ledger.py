"""The ledger: what was written is read again, and nothing else is taken for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterbank.errors import ConflictError, IntegrityError
from adapterbank.search.ledger import Ledger, Trial, training_file
from adapterbank.search.storage import Storage
from tests.search_trials import IDENTITY, ended, ledger, trials


def filled(folder: Path) -> Ledger:
    """A search of three trials, the last of which runs."""
    book = ledger(folder)
    book.note()
    for trial in (ended(0, [10, 20]), ended(1, [5], state="stopped")):
        book.put(trial)
    book.put(ended(2, [], state="started", latency=None))
    return book


@settings(max_examples=25)
@given(found=trials())
def test_every_trial_is_read_as_it_was_written(
    found: list[Trial], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    book = ledger(folder)
    book.note(latencies={"a": 1.5}, seconds=2.5)
    for trial in found:
        book.put(trial)
    again = ledger(folder)
    assert again.trials == {trial.number: trial for trial in found}
    assert again.header == book.header
    assert (again.header.latencies, again.header.seconds) == ({"a": 1.5}, 2.5)
    assert not again.header.complete


@settings(max_examples=40)
@given(
    values=st.dictionaries(
        st.text(min_size=1),
        st.one_of(
            st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(),
            st.floats(allow_nan=False, allow_infinity=False),
        ),
    )
)  # fmt: skip
def test_values_keep_their_type_and_every_digit(
    values: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("values")
    book = ledger(folder)
    book.note()
    book.put(ended(0, [1], values=values))
    back = ledger(folder).trials[0].values
    assert back == values
    assert {name: type(value) for name, value in back.items()} == {
        name: type(value) for name, value in values.items()
    }


def test_what_runs_has_not_ended_and_has_no_score(tmp_path: Path) -> None:
    filled(tmp_path)
    book = ledger(tmp_path)
    assert [trial.number for trial in book.ended] == [0, 1]
    assert [trial.score for trial in book.trials.values()] == [0.2, 0.05, None]
    book.put(replace(book.trials[2], state="failed", error="lost"))
    assert [trial.number for trial in ledger(tmp_path).ended] == [0, 1, 2]


@pytest.mark.parametrize("other", [("colours", "2" * 64), ("tints", IDENTITY)])
def test_another_search_in_the_place_is_refused_with_what_to_do(
    tmp_path: Path, other: tuple[str, str]
) -> None:
    filled(tmp_path)
    with pytest.raises(ConflictError) as caught:
        Ledger(Storage(tmp_path / "colours"), *other)
    assert caught.value.exit_code == 5
    assert "holds a search of colours" in caught.value.message
    assert caught.value.fix is not None
    assert f"adapterbank tune {other[0]} --fresh" in caught.value.fix
    assert "--storage" in caught.value.fix


def test_a_search_that_never_started_a_trial_is_in_nobodys_way(tmp_path: Path) -> None:
    ledger(tmp_path).note(latencies={"a": 1.5})
    book = ledger(tmp_path, identity="2" * 64)
    assert (book.header.identity, book.header.latencies, book.trials) == ("2" * 64, {}, {})


def overwrite(content: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_text(content)

    return damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def change(name: str, value: object) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        overwrite(""),
        overwrite("[]"),
        overwrite('"trial"'),
        overwrite("\x00" * 64),
        change("strange", 1),
        change("schema", 2),
        change("seconds", "soon"),
        Path.unlink,
    ],
)
def test_a_damaged_header_is_an_integrity_error(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    filled(tmp_path)
    damage(tmp_path / "colours" / "search.json")
    expect_damage(tmp_path, "search.json")


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        overwrite(""),
        overwrite("{}"),
        change("state", "won"),
        change("number", 2),
        change("points", [{"epoch": 1}]),
        change("latency", "NaN"),
        change("strange", 1),
        Path.unlink,
    ],
)
def test_a_damaged_or_missing_trial_is_an_integrity_error(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    filled(tmp_path)
    damage(tmp_path / "colours" / "trials" / "00001.json")
    expect_damage(tmp_path, "00001.json")


def expect_damage(folder: Path, name: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        ledger(folder)
    assert caught.value.exit_code == 4
    assert name in caught.value.message
    assert caught.value.fix == "adapterbank tune colours --fresh"
    Ledger.clear(Storage(folder / "colours"))
    assert ledger(folder).trials == {}


def test_leftovers_of_a_killed_writer_and_training_states_are_no_trials(tmp_path: Path) -> None:
    book = filled(tmp_path)
    book.storage.write(training_file(2), b"weights")
    (tmp_path / "colours" / "trials" / ".tmp-00003.json-ab12").write_text("{")
    assert sorted(ledger(tmp_path).trials) == [0, 1, 2]


def test_clearing_deletes_the_search_and_nothing_else(tmp_path: Path) -> None:
    book = filled(tmp_path)
    book.storage.write("heads/1.safetensors", b"head")
    mine = tmp_path / "colours" / "blue" / "0.png"
    mine.parent.mkdir()
    mine.write_bytes(b"an image")
    Ledger.clear(book.storage)
    assert [p for p in (tmp_path / "colours").rglob("*") if p.is_file()] == [mine]
    Ledger.clear(book.storage)  # nothing to do


def test_a_search_half_cleared_is_not_taken_for_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after any deletion, what is left is the old search or none."""
    real = Storage.delete
    for survived in range(3):
        left = iter(range(survived))

        def delete(self: Storage, name: str) -> None:
            if next(left, None) is None:  # noqa: B023  # called within the turn
                raise KeyboardInterrupt
            real(self, name)

        filled(tmp_path)
        monkeypatch.setattr(Storage, "delete", delete)
        with pytest.raises(KeyboardInterrupt):
            Ledger.clear(Storage(tmp_path / "colours"))
        monkeypatch.undo()
        assert (tmp_path / "colours" / "search.json").exists()
        assert len(ledger(tmp_path).trials) in {0, 3}
