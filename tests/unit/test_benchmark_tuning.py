"""How the benchmark of searches counts costs and compares choices at equal cost."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbank.records import Score
from adapterbank.search.ledger import Point, State, Trial
from adapterbank.search.space import points
from benchmarks._tuning_bank import shipped_space
from benchmarks._tuning_cost import FRACTIONS, best_so_far, cost_of, grid_of, levels, mean_of


def trial(*correct: int, number: int = 0, state: State = "finished") -> Trial:
    """A trial with so many of 100 right after each of its epochs."""
    told = tuple(
        Point(epoch=i, val=Score(correct=right, total=100), val_loss=1.0, loss=1.0, seconds=0.1)
        for i, right in enumerate(correct, 1)
    )
    error = None if state in {"finished", "stopped"} else "training diverged"
    return Trial(number=number, values={}, state=state, points=told, error=error)


def test_a_trial_costs_its_epochs_and_the_one_it_diverged_in() -> None:
    assert cost_of(trial(1, 2, 3)) == 3
    assert cost_of(trial(1, state="stopped")) == 1
    assert cost_of(trial(1, 2, state="diverged")) == 3
    assert cost_of(trial(state="failed")) == 1


def test_a_trial_counts_once_all_its_epochs_are_paid_for() -> None:
    ended = [trial(10, 20, number=0), trial(10, 60, number=1), trial(10, 40, number=2)]
    assert best_so_far(ended, 6, (1 / 6, 2 / 6, 3 / 6, 4 / 6, 1.0)) == (None, 0.2, 0.2, 0.6, 0.6)


def test_the_order_is_that_in_which_trials_ended_not_that_of_their_numbers() -> None:
    ended = [trial(50, number=3), trial(70, number=0)]
    assert best_so_far(ended, 2, (0.5, 1.0)) == (0.5, 0.7)


def test_a_trial_past_the_cost_is_not_counted_nor_any_after_it() -> None:
    ended = [trial(10, 20, number=0), trial(90, 90, 90, number=1), trial(80, number=2)]
    assert best_so_far(ended, 4, (1.0,)) == (0.2,)


def test_the_choice_is_among_the_trials_that_got_furthest() -> None:
    ended = [trial(90, number=0, state="stopped"), trial(10, 30, number=1)]
    assert best_so_far(ended, 3, (1 / 3, 1.0)) == (0.9, 0.3)


def test_a_diverged_trial_costs_and_is_never_chosen() -> None:
    ended = [trial(99, number=0, state="diverged"), trial(40, 40, number=1)]
    assert best_so_far(ended, 4, (0.5, 0.75, 1.0)) == (None, None, 0.4)


def test_trials_that_cost_nothing_yet_leave_nothing_to_choose() -> None:
    assert best_so_far([], 10) == (None,) * len(FRACTIONS)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=12))
def test_with_whole_trials_the_best_so_far_is_the_running_maximum(scores: list[int]) -> None:
    ended = [trial(0, score, number=i) for i, score in enumerate(scores)]
    parts = [(i + 1) / len(scores) for i in range(len(scores))]
    found = best_so_far(ended, 2 * len(scores), parts)
    assert found == tuple(max(scores[: i + 1]) / 100 for i in range(len(scores)))


def test_a_mean_over_seeds_is_only_of_those_that_all_have_a_figure() -> None:
    assert mean_of([0.2, 0.4]) == pytest.approx(0.3)
    assert mean_of([0.2, None]) is None
    assert mean_of([]) is None


def test_levels_reach_from_end_to_end_by_equal_factors() -> None:
    found = levels(0.01, 1.0, 3)
    assert found == pytest.approx([0.01, 0.1, 1.0])
    assert levels(0.01, 1.0, 1) == pytest.approx([0.1])
    ratios = [b / a for a, b in zip(levels(0.003, 0.03, 6)[:-1], levels(0.003, 0.03, 6)[1:],
                                    strict=True)]  # fmt: skip
    assert ratios == pytest.approx([10 ** (1 / 5)] * 5)


@pytest.mark.parametrize("count", range(1, 25))
def test_a_grid_costs_exactly_what_it_may(count: int) -> None:
    space = shipped_space()
    grid = grid_of(space, count)
    found = points({name: tuple(values) for name, values in grid.items()})
    assert len(found) == count == len({tuple(sorted(point.items())) for point in found})
    assert set(grid["prompts"]) <= set(space["prompts"])
    low, high = space["learning_rate"]["low"], space["learning_rate"]["high"]
    assert all(low <= rate * (1 + 1e-9) and rate <= high * (1 + 1e-9) for rate in
               grid["learning_rate"])  # fmt: skip
    assert len(grid["prompts"]) <= max(1, math.isqrt(count))
