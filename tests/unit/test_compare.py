"""Comparisons of two versions: by hand, against frozen values, by symmetry and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from adapterbank.records import Score
from adapterbank.registry.verdicts import Comparison
from adapterbank.release.compare import (
    calibration_error,
    compare_answers,
    compare_counts,
    compare_pairs,
)

_ROUNDED = 1.1e-6  # intervals keep six digits after the point

answers = st.lists(st.booleans(), min_size=1, max_size=60)
scores = st.integers(1, 80).flatmap(
    lambda n: st.builds(Score, correct=st.integers(0, n), total=st.just(n))
)


def bools(values: list[bool]) -> NDArray[np.bool_]:
    """Make an array."""
    return np.array(values, dtype=bool)


def mirrored(comparison: Comparison) -> tuple[float, float]:
    """The interval of the difference the other way round."""
    low, high = comparison.interval
    return -high, -low


def test_the_paired_test_is_the_binomial_on_images_that_differ() -> None:
    champion = np.arange(200) < 132
    challenger = (champion & (np.arange(200) >= 12)) | (np.arange(200) >= 197)
    comparison = compare_answers(challenger, champion)

    by_hand = sum(math.comb(15, k) for k in range(12, 16)) / 2**15
    assert comparison.test == "mcnemar"
    assert comparison.p == pytest.approx(by_hand, rel=1e-5)
    assert (comparison.gained, comparison.lost) == (3, 12)
    assert comparison.difference == -9 / 200


@pytest.mark.parametrize(
    ("counts", "p", "interval"),
    [
        ((1, 0, 1), 0.5, (-1.0, 0.510101)),
        ((80, 3, 9), 0.072998, (-0.157883, 0.011541)),
        ((200, 3, 12), 0.0175781, (-0.082876, -0.006233)),
        ((200, 0, 0), 1.0, (-0.009703, 0.009703)),
        ((1000, 41, 39), 0.631223, (-0.015608, 0.0196)),
        ((100_000, 0, 400), 3.87259e-121, (-0.004392, -0.003608)),
    ],
    ids=str,
)
def test_paired_figures_are_those_that_histories_hold(
    counts: tuple[int, int, int], p: float, interval: tuple[float, float]
) -> None:
    comparison = compare_pairs(*counts)
    assert (comparison.p, comparison.interval) == (p, interval)


@pytest.mark.parametrize(
    ("challenger", "champion", "p", "interval"),
    [
        ((0, 1), (1, 1), 0.5, (-1.0, 0.421057)),
        ((60, 100), (80, 100), 0.00159591, (-0.31941, -0.072746)),
        ((150, 200), (70, 80), 0.0137394, (-0.213358, -0.0233)),
        ((80, 80), (79, 80), 1.0, (-0.028781, 0.053172)),
        ((5, 9), (400, 900), 0.842182, (-0.195147, 0.396921)),
    ],
    ids=str,
)
def test_unpaired_figures_are_those_that_histories_hold(
    challenger: tuple[int, int],
    champion: tuple[int, int],
    p: float,
    interval: tuple[float, float],
) -> None:
    mine, theirs = (Score(correct=right, total=total) for right, total in (challenger, champion))
    comparison = compare_counts(mine, theirs)
    assert (comparison.test, comparison.gained, comparison.lost) == ("fisher", None, None)
    assert (comparison.p, comparison.interval) == (p, interval)


@given(scores, scores)
def test_the_unpaired_test_is_the_hypergeometric_tail(challenger: Score, champion: Score) -> None:
    right, images = (
        challenger.correct + champion.correct,
        challenger.total + champion.total,
    )
    ways = sum(
        math.comb(right, k) * math.comb(images - right, challenger.total - k)
        for k in range(challenger.correct + 1)
    )
    expected = ways / math.comb(images, challenger.total)
    assert compare_counts(challenger, champion).p == pytest.approx(expected, rel=1e-5)


@given(st.data())
def test_swapping_paired_versions_turns_everything_round(data: st.DataObject) -> None:
    first = bools(data.draw(answers))
    second = bools(data.draw(st.lists(st.booleans(), min_size=len(first), max_size=len(first))))
    there, back = compare_answers(first, second), compare_answers(second, first)

    assert there.difference == -back.difference
    assert there.interval == pytest.approx(mirrored(back), abs=_ROUNDED)
    low, high = there.interval
    centre = there.difference * len(first) / (len(first) + 2)
    assert -1.0 <= low <= centre + _ROUNDED
    assert centre - _ROUNDED <= high <= 1.0
    # Both one-sided tests count the outcome itself.
    assert there.p + back.p >= 1.0 - 1e-5


@given(scores, scores)
def test_swapping_unpaired_versions_turns_everything_round(
    challenger: Score, champion: Score
) -> None:
    there, back = compare_counts(challenger, champion), compare_counts(champion, challenger)
    assert there.difference == -back.difference
    assert there.interval == pytest.approx(mirrored(back), abs=_ROUNDED)
    assert there.p + back.p >= 1 - 1e-5  # both count the outcome itself


def test_the_paired_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    # 12 % of images are gained and 9 % are lost: the truth is +3 points.
    draws = generator.multinomial(300, [0.12, 0.09, 0.79], size=2000).tolist()
    intervals = [compare_pairs(300, up, down, level=0.9).interval for up, down, _ in draws]
    covered = sum(low <= 0.03 <= high for low, high in intervals)
    assert 0.87 <= covered / 2000 <= 0.93


def test_the_unpaired_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    drawn = generator.binomial((60, 90), (0.7, 0.8), (3000, 2)).tolist()
    intervals = [
        compare_counts(Score(correct=mine, total=60), Score(correct=theirs, total=90)).interval
        for mine, theirs in drawn
    ]
    covered = sum(low <= -0.1 <= high for low, high in intervals)
    assert 0.94 <= covered / 3000 <= 0.97


def test_a_perfectly_calibrated_version_has_almost_no_calibration_error() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.2, 1.0, 20_000)
    right = generator.uniform(size=20_000) < confidence
    assert calibration_error(confidence, right) < 0.02
    assert calibration_error(np.ones(10), np.zeros(10, dtype=bool)) == pytest.approx(1.0)
    assert calibration_error(np.full(10, 0.7), bools([True] * 7 + [False] * 3)) < 0.5


def test_calibration_by_hand() -> None:
    # Two images in two bins: sure and wrong, unsure and right.
    error = calibration_error(np.array([0.9, 0.6]), bools([False, True]))
    assert error == pytest.approx((0.9 + 0.4) / 2)
