"""Permutation tests: exact nulls, effects that ignore size, and what would make them lie."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from adapterbank.drift.two_sample import (
    Difference,
    Labels,
    distribution_test,
    fall_test,
    kernel_test,
    principal,
    relabel,
)

Floats = NDArray[np.float64]


def drawn(seed: int, rows: int, width: int = 64, shift: float = 0.0) -> Floats:
    """Draw heavy-tailed rows that scatter in some directions a little more than in others."""
    generator = np.random.default_rng([seed, rows])
    scale = np.exp(-np.arange(width) / width)
    return generator.standard_t(6, (rows, width)) * scale + shift


def false_alarms(held: int, fitted_to: str) -> float:
    """Return the share of unchanged windows with p ≤ 0.1, of 200."""
    found = 0
    for seed in range(200):
        rows = drawn(seed, held + 60)
        if fitted_to == "both":
            projected = principal(rows, 16)
        else:
            mean = rows[:held].mean(axis=0)
            _, turn = np.linalg.eigh(np.cov(rows[:held].T))
            projected = (rows - mean) @ turn[:, ::-1][:, :16]
        found += kernel_test(projected, relabel(held, 60, 99, [seed])).p <= 0.1
    return found / 200


def test_unchanged_samples_look_changed_as_seldom_as_promised() -> None:
    # Binomial of 200 at 0.1: more than 0.155 happens once in two hundred tries.
    assert false_alarms(24, "both") <= 0.155


def test_directions_of_one_sample_alone_would_raise_false_alarms() -> None:
    assert false_alarms(24, "the first") >= 0.3


@pytest.mark.parametrize("test", [distribution_test, fall_test])
def test_unchanged_numbers_look_changed_as_seldom_as_promised(
    test: Callable[[Floats, Labels], Difference],
) -> None:
    generator = np.random.default_rng(0)
    found = 0
    for seed in range(400):
        # Rounded: ties are the rule.
        rows = np.round(generator.standard_normal(80), 1)
        found += test(rows, relabel(20, 60, 99, [seed])).p <= 0.1
    assert found / 400 <= 0.14


def test_what_moved_is_found_and_its_size_does_not_grow_with_the_sample() -> None:
    effects = []
    for rows in (100, 800):
        pooled = np.concatenate([drawn(1, rows), drawn(2, rows, shift=0.15)])
        found = kernel_test(pooled, relabel(rows, rows, 199, [0]))
        assert found.p == pytest.approx(1 / 200)
        effects.append(found.effect)
    assert effects[1] == pytest.approx(effects[0], rel=0.35)
    assert effects[0] > 0.1


def test_the_statistic_is_the_unbiased_one_by_its_formula() -> None:
    first, second = drawn(1, 9, 5), drawn(2, 7, 5, shift=1.0)
    pooled = np.concatenate([first, second])
    distances = ((pooled[:, None] - pooled[None]) ** 2).sum(axis=2)
    kernel = np.exp(-distances / (4 * np.median(distances[np.triu_indices(16, 1)])))
    own = (kernel[:9, :9].sum() - 9) / 72
    other = (kernel[9:, 9:].sum() - 7) / 42
    squared = own + other - 2 * kernel[:9, 9:].mean()
    found = kernel_test(pooled, relabel(9, 7, 19, [0]))
    assert found.effect == pytest.approx(np.sqrt(squared / (1 - (own + other) / 2)), rel=1e-4)


@given(st.lists(st.integers(0, 5), min_size=8, max_size=30), st.integers(2, 6))
@settings(max_examples=50, deadline=None)
def test_the_distance_of_distributions_is_scipys(values: list[int], first: int) -> None:
    pooled = np.array(values, dtype=np.float64)
    found = distribution_test(pooled, relabel(first, len(values) - first, 9, [0]))
    expected = stats.ks_2samp(pooled[:first], pooled[first:], method="asymp").statistic
    assert found.effect == pytest.approx(expected)


def test_only_a_fall_is_a_fall() -> None:
    high, low = np.full(30, 0.9), np.full(30, 0.7)
    high[0], low[0] = 0.8, 0.8
    labels = relabel(30, 30, 99, [0])
    fell = fall_test(np.concatenate([high, low]), labels)
    assert fell.p == pytest.approx(0.01)
    assert fell.effect == pytest.approx((high.sum() - low.sum()) / 30)
    rose = fall_test(np.concatenate([low, high]), labels)
    assert rose.p > 0.9
    assert rose.effect == pytest.approx(-fell.effect)


def test_equal_rows_are_no_evidence() -> None:
    labels = relabel(10, 10, 99, [0])
    assert kernel_test(np.ones((20, 3)), labels).p == 1.0
    assert distribution_test(np.ones(20), labels).p == 1.0
    assert fall_test(np.ones(20), labels).p == 1.0


def test_equal_seeds_give_equal_relabellings_of_the_right_size() -> None:
    one, two = relabel(5, 9, 20, [3, 1]), relabel(5, 9, 20, [3, 1])
    assert (one.marks == two.marks).all()
    assert (one.marks.sum(axis=0) == 5).all()
    assert one.marks[:, 0].tolist() == [1.0] * 5 + [0.0] * 9
    assert (one.marks != relabel(5, 9, 20, [3, 2]).marks).any()


@pytest.mark.parametrize("sizes", [(1, 9, 9), (9, 1, 9), (9, 9, 0)])
def test_too_little_to_compare_is_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(AssertionError):
        relabel(*sizes, [0])
