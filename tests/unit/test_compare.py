"""Comparisons of two versions: by hand, against frozen values, by symmetry and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from adapterbank.registry.verdicts import Comparison
from adapterbank.release.compare import compare_answers, compare_pairs

_ROUNDED = 1.1e-6  # intervals keep six digits after the point

answers = st.lists(st.booleans(), min_size=1, max_size=60)


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


def test_the_paired_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    # 12 % of images are gained and 9 % are lost: the truth is +3 points.
    draws = generator.multinomial(300, [0.12, 0.09, 0.79], size=2000).tolist()
    intervals = [compare_pairs(300, up, down, level=0.9).interval for up, down, _ in draws]
    covered = sum(low <= 0.03 <= high for low, high in intervals)
    assert 0.87 <= covered / 2000 <= 0.93
