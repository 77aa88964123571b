"""Metrics of continual learning on matrices small enough to work out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbank.continual.metrics import AccuracyMatrix, summarise
from adapterbank.records import Score

TASKS = ("a", "b", "c")


def matrix_of_scores(
    tasks: Sequence[str],
    rows: Sequence[Sequence[Score | None]],
    learned: Sequence[Sequence[int]] | None = None,
) -> AccuracyMatrix:
    """Make a matrix of scores; step ``i`` learned ``tasks[i]`` where nothing else is said."""
    scores = [[score or Score(correct=0, total=0) for score in row] for row in rows]
    shape = (len(scores), len(tasks))
    if learned is None:
        learned = [(place,) if place < len(scores) else () for place in range(len(tasks))]
    return AccuracyMatrix(
        tasks=tuple(tasks),
        correct=np.array([[s.correct for s in row] for row in scores], np.int64).reshape(shape),
        total=np.array([[s.total for s in row] for row in scores], np.int64).reshape(shape),
        learned=tuple(tuple(steps) for steps in learned),
    )


def matrix(*rows: tuple[int | None, ...], totals: tuple[int, ...] = (10, 10, 10)) -> AccuracyMatrix:
    """Make a matrix from counts of right answers."""
    counts = tuple(
        tuple(
            None if right is None else Score(correct=right, total=total)
            for right, total in zip(row, totals, strict=True)
        )
        for row in rows
    )
    return matrix_of_scores(TASKS, counts)


# Task a falls from 8 to 6 and recovers to 7; b falls from 9 to 8; c is learned last. b and c are
# measured before they are learned: 1 and 2 of 10.
HAND = matrix((8, 1, None), (6, 9, 2), (7, 8, 5))


def test_every_metric_of_a_matrix_worked_out_by_hand() -> None:
    found = summarise(HAND, alone={"a": 0.85, "b": 0.9, "c": 0.65})

    assert found == pytest.approx(
        {
            "average": (0.7 + 0.8 + 0.5) / 3,
            "average/micro": 20 / 30,
            "average/incremental": (0.8 + 0.75 + 2 / 3) / 3,
            "forgetting/chaudhry": ((0.8 - 0.7) + (0.9 - 0.8)) / 2,
            "forgetting/clamped": ((0.8 - 0.7) + (0.9 - 0.8)) / 2,
            "forgetting/first": ((0.8 - 0.7) + (0.9 - 0.8)) / 2,
            "bwt/gem": -0.1,
            "bwt/all_pairs": ((0.6 - 0.8) + (0.7 - 0.8) + (0.8 - 0.9)) / 3,
            "intransigence": ((0.85 - 0.8) + (0.9 - 0.9) + (0.65 - 0.5)) / 3,
        }
    )


def test_the_variants_of_forgetting_differ_where_they_should() -> None:
    # a rises after it was learned, then falls; b ends better than it began.
    found = summarise(matrix((5, None, None), (9, 4, None), (6, 8, 5)))

    assert found["forgetting/chaudhry"] == pytest.approx(((0.9 - 0.6) + (0.4 - 0.8)) / 2)
    assert found["forgetting/clamped"] == pytest.approx(((0.9 - 0.6) + 0.0) / 2)
    assert found["forgetting/first"] == pytest.approx(((0.5 - 0.6) + (0.4 - 0.8)) / 2)
    assert found["bwt/gem"] == pytest.approx(-found["forgetting/first"])


def test_pooling_weighs_images_and_the_average_weighs_tasks() -> None:
    found = summarise(matrix((9, None, None), (9, 50, None), (9, 50, 5), totals=(10, 100, 10)))

    assert found["average"] == pytest.approx((0.9 + 0.5 + 0.5) / 3)
    assert found["average/micro"] == pytest.approx(64 / 120)


def test_what_was_not_measured_has_no_metric() -> None:
    assert "intransigence" not in summarise(matrix((8, None, None), (8, 9, None)))
    assert "forgetting/chaudhry" not in summarise(matrix((8, None, None)))


@given(st.lists(st.tuples(*[st.integers(0, 10)] * 3), min_size=3, max_size=3))
def test_an_isolated_bank_forgets_exactly_nothing(rows: list[tuple[int, ...]]) -> None:
    first = rows[0]
    found = summarise(matrix(first, first, first))

    for name in ("forgetting/chaudhry", "forgetting/clamped", "forgetting/first", "bwt/all_pairs"):
        assert found[name] == 0.0
    moved = summarise(matrix(*rows))
    assert moved["forgetting/clamped"] >= max(0.0, moved["forgetting/chaudhry"])
    assert moved["forgetting/clamped"] >= moved["forgetting/first"]


@pytest.mark.parametrize(
    "rows",
    [
        ((8, 1),),
        ((None, 1, 1),),
        ((8, 1, 1), (8, None, 1)),
        ((8, 1, 1), (0, 1)),
    ],
    ids=["short", "not measured when learned", "not measured later", "ragged"],
)
def test_a_matrix_with_holes_where_it_counts_cannot_be_made(
    rows: tuple[tuple[int | None, ...], ...],
) -> None:
    counts = [[None if n is None else Score(correct=n, total=10) for n in row] for row in rows]
    with pytest.raises((AssertionError, ValueError)):
        matrix_of_scores(TASKS, counts)


def test_nothing_is_said_of_no_step() -> None:
    with pytest.raises(AssertionError, match="nothing to summarise"):
        summarise(matrix_of_scores(TASKS, []))


def test_who_learned_what_may_be_said_and_then_changes_nothing() -> None:
    said = AccuracyMatrix(
        tasks=TASKS, correct=HAND.correct, total=HAND.total, learned=((0,), (1,), (2,))
    )
    alone = {"a": 0.85, "b": 0.9, "c": 0.65}
    assert summarise(said, alone=alone) == summarise(HAND, alone=alone)


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=3, max_size=6))
def test_a_task_learned_anew_is_compared_with_what_came_after_only(
    rows: list[tuple[int, int]],
) -> None:
    # a at step 0, b at step 1, a again at the last step but one: what a was before is nothing.
    counts = tuple(tuple(Score(correct=one, total=10) for one in row) for row in rows)
    again, last = len(rows) - 2, len(rows) - 1
    learned = ((0, again), (1,)) if again > 1 else ((0, 1), (1,))
    found = summarise(matrix_of_scores(("a", "b"), counts, learned))
    first = max(again, 1)
    lost = [rows[first][0] - rows[last][0], rows[1][1] - rows[last][1]]
    assert found["forgetting/first"] == pytest.approx(sum(lost) / 20)
    assert found["renewal"] == pytest.approx((rows[first][0] - rows[first - 1][0]) / 10)
    assert found["forgetting/clamped"] >= max(0.0, found["forgetting/first"]) - 1e-9


@pytest.mark.parametrize(
    "learned",
    [
        ((0,), (1,)),
        ((0,), (3,), (2,)),
        ((0,), (1, 1), (2,)),
        ((1,), (1,), (2,)),
        ((0,), (1,), (1,)),
    ],
    ids=["of two tasks", "too late", "twice", "nothing at first", "not measured"],
)
def test_what_cannot_have_been_learned_so_is_no_matrix(
    learned: tuple[tuple[int, ...], ...],
) -> None:
    total = HAND.total.copy()
    total[1, 2] = 0
    with pytest.raises(AssertionError):
        AccuracyMatrix(tasks=TASKS, correct=HAND.correct, total=total, learned=learned)
