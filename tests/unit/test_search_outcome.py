"""The winner and the front of a search, against their definitions."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from adapterbank.search.ledger import Trial
from adapterbank.search.outcome import choose, pareto, table
from tests.search_trials import ended, trials


def whole(found: Sequence[Trial]) -> list[Trial]:
    """Trials that may win: sound, and as far as any."""
    sound = [t for t in found if t.points and t.error is None]
    return [t for t in sound if len(t.points) == max(len(s.points) for s in sound)]


def figures(trial: Trial) -> tuple[int, int, float]:
    """Make smaller better in all three."""
    assert trial.latency is not None
    return (-trial.points[-1].val.correct, trial.parameters, trial.latency)


def dominated(trial: Trial, by: Trial) -> bool:
    pairs = list(zip(figures(by), figures(trial), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@given(found=trials(), seed=st.integers(0, 1000))
def test_the_order_of_the_trials_decides_nothing(found: list[Trial], seed: int) -> None:
    other = list(found)
    random.Random(seed).shuffle(other)  # noqa: S311  # no secret
    assert choose(other) == choose(found)
    assert pareto(other) == pareto(found)
    assert table(other, choose(other)) == table(found, choose(found))


@given(found=trials())
def test_the_winner_is_right_most_often_then_of_the_smallest_rate(found: list[Trial]) -> None:
    winner, able = choose(found), whole(found)
    if winner is None:
        assert able == []
        return
    assert winner in able
    best = [t for t in able if figures(t)[0] == min(figures(s)[0] for s in able)]
    assert winner in best
    rates = [t.values.get("learning_rate", 0.0) for t in best]
    assert winner.values.get("learning_rate", 0.0) == min(rates)


@given(found=trials())
def test_the_front_is_what_its_definition_says(found: list[Trial]) -> None:
    front, able = pareto(found), whole(found)
    expected = {
        t.number
        for t in able
        if not any(dominated(t, by) for by in able)
        and not any(figures(s) == figures(t) and s.number < t.number for s in able)
    }
    assert {t.number for t in front} == expected
    for member in front:
        assert not any(dominated(member, by) for by in able)
    for other in able:
        if other not in front:
            assert any(
                dominated(other, by) or (figures(by) == figures(other) and by.number < other.number)
                for by in front
            )
    accuracies = [t.points[-1].val.correct for t in front]
    assert accuracies == sorted(accuracies, reverse=True)


@given(found=trials())
def test_the_table_has_a_row_for_each_trial_and_marks_the_front(found: list[Trial]) -> None:
    winner = choose(found)
    rows = list(csv.DictReader(io.StringIO(table(found, winner))))
    assert sorted(int(row["trial"]) for row in rows) == [t.number for t in found]
    assert {int(row["trial"]) for row in rows if row["pareto"] == "1"} == {
        t.number for t in pareto(found)
    }
    chosen = [int(row["trial"]) for row in rows if row["chosen"] == "1"]
    assert chosen == ([] if winner is None else [winner.number])


def test_equal_trials_go_to_the_smaller_rate_then_parameters_then_the_earlier() -> None:
    found = [
        ended(0, [50, 60], values={"learning_rate": 0.5}),
        ended(1, [10, 60], values={"learning_rate": 0.05}, parameters=20),
        ended(2, [10, 60], values={"learning_rate": 0.05}, parameters=10),
        ended(3, [10, 60], values={"learning_rate": 0.05}, parameters=10),
    ]
    for expected in (2, 3, 1, 0):
        winner = choose(found)
        assert winner is not None
        assert winner.number == expected
        found.remove(winner)


def test_a_trial_that_was_stopped_early_cannot_win() -> None:
    early = ended(0, [99], state="stopped")
    late = ended(1, [10, 20])
    assert choose([early, late]) == late
    assert pareto([early, late]) == (late,)


def test_of_trials_that_failed_or_diverged_none_wins() -> None:
    found = [
        ended(0, [99, 99], state="diverged", error="training diverged"),
        ended(1, [99, 99], state="failed", error="its worker was lost"),
        ended(2, [], state="started"),
    ]
    assert choose(found) is None
    assert pareto(found) == ()
    assert [t.score for t in found] == [0.0, 0.0, None]


def test_values_stand_in_the_table_so_that_they_can_be_told_apart() -> None:
    found = [
        ended(0, [1], values={"residual": True, "activation": 'a, "b"', "rate": None}),
        ended(1, [0], values={"prompts": 5}, latency=None),
    ]
    first, second = csv.DictReader(io.StringIO(table(found, None)))
    assert (first["residual"], first["activation"], first["rate"]) == ("true", 'a, "b"', "null")
    assert (second["prompts"], second["latency"], second["accuracy"]) == ("5", "", "0.000000")
