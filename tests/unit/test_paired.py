"""The paired comparison of two versions: against formulas, libraries and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from adapterbank.errors import InputError
from adapterbank.release.paired import calibration_error, compare, pack_right, unpack_right

answers = st.lists(st.booleans(), min_size=1, max_size=60)


def bools(values: list[bool]) -> NDArray[np.bool_]:
    """Make an array."""
    return np.array(values, dtype=bool)


def planted(n: int, both: int, gained: int, lost: int) -> tuple[NDArray[np.bool_], ...]:
    """Make answers of a challenger and a champion with given counts."""
    challenger, champion = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    challenger[: both + gained] = True
    champion[:both] = True
    champion[both + gained : both + gained + lost] = True
    return challenger, champion


def test_the_test_is_the_binomial_on_images_that_differ() -> None:
    pair = compare(*planted(200, both=120, gained=3, lost=12))

    by_hand = sum(math.comb(15, k) for k in range(12, 16)) / 2**15
    assert pair.p_worse == pytest.approx(by_hand)
    assert (pair.gained, pair.lost) == (3, 12)
    assert pair.difference == pytest.approx(-9 / 200)
    assert (pair.challenger.correct, pair.champion.correct) == (123, 132)


def test_no_change_is_no_evidence() -> None:
    right = bools([True, False, True])
    pair = compare(right, right)
    assert (pair.p_worse, pair.difference) == (1.0, 0.0)


@given(st.data())
def test_swapping_the_two_turns_everything_round(data: st.DataObject) -> None:
    first = bools(data.draw(answers))
    second = bools(data.draw(st.lists(st.booleans(), min_size=len(first), max_size=len(first))))
    there, back = compare(first, second), compare(second, first)

    assert there.difference == -back.difference
    low, high = there.interval()
    assert (low, high) == pytest.approx((-back.interval()[1], -back.interval()[0]))
    assert -1.0 <= low <= there.difference * len(first) / (len(first) + 2) <= high <= 1.0
    # Both one-sided tests count the outcome itself.
    assert there.p_worse + back.p_worse >= 1.0 - 1e-12


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    # 12 % of images are gained and 9 % are lost: the truth is +3 points.
    draws = generator.choice(3, p=[0.12, 0.09, 0.79], size=(2000, 300))
    covered = 0
    for row in draws:
        pair = compare(row != 1, row != 0)
        low, high = pair.interval(0.9)
        covered += low <= 0.03 <= high
    assert 0.87 <= covered / 2000 <= 0.93


def test_a_perfectly_calibrated_version_has_almost_no_calibration_error() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.2, 1.0, 20_000)
    right = generator.uniform(size=20_000) < confidence
    assert calibration_error(confidence, right) < 0.02
    assert calibration_error(np.ones(10), np.zeros(10, dtype=bool)) == pytest.approx(1.0)
    assert calibration_error(np.full(10, 0.7), bools([True] * 7 + [False] * 3)) < 0.5


def test_calibration_by_hand() -> None:
    # Two images in two bins: sure and wrong, unsure and right.
    found = calibration_error(np.array([0.9, 0.6]), bools([False, True]))
    assert found == pytest.approx((0.9 + 0.4) / 2)


@given(answers)
def test_packed_answers_come_back(values: list[bool]) -> None:
    assert unpack_right(pack_right(bools(values)), len(values)).tolist() == values


def test_answers_of_other_images_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        compare(bools([True]), bools([True, False]))
    with pytest.raises(InputError, match="cannot be compared"):
        compare(bools([]), bools([]))
    with pytest.raises(InputError, match="answers to 8 images, expected 9"):
        unpack_right(pack_right(bools([True] * 8)), 9)
    with pytest.raises(InputError, match="not a list of answers"):
        unpack_right("xy", 3)
    with pytest.raises(InputError, match="2 confidences of 3 answers"):
        calibration_error(np.ones(2), bools([True] * 3))
