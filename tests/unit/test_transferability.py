"""The scores that rank parents: properties that hold for any features, then what they tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage

from adapterbank.errors import InputError
from adapterbank.pipeline.transferability import (
    TaskGaussian,
    bhattacharyya,
    ledoit_wolf,
    shrunk_h_score,
)
from adapterbank.routing.record import TaskStatistics, triangle
from tests.routing_samples import World

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
FEW = settings(max_examples=30)
seeds = st.integers(0, 10_000)


def drawn(seed: int, count: int = 60, width: int = 12, apart: float = 1.0) -> tuple[Array, Labels]:
    """Draw features of three classes with uneven noise, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 3
    means = apart * random.standard_normal((3, width))
    noise = random.standard_normal((count, width)) * np.exp(random.standard_normal(width))
    return means[labels] + noise, labels


def turned(width: int, seed: int) -> Array:
    turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))
    return np.asarray(turn)


@FEW
@given(seeds, st.integers(4, 80), st.integers(2, 40))
def test_the_shrinkage_is_that_of_scikit_learn(seed: int, count: int, width: int) -> None:
    rows, _ = drawn(seed, count, width)
    centred = rows - rows.mean(axis=0)
    expected = ledoit_wolf_shrinkage(centred, assume_centered=True)
    assert ledoit_wolf(centred) == pytest.approx(float(expected), abs=1e-9)


@FEW
@given(seeds, st.integers(6, 80), st.integers(2, 40))
def test_an_h_score_is_between_nothing_and_one_less_than_the_classes(
    seed: int, count: int, width: int
) -> None:
    rows, labels = drawn(seed, count, width)
    assert 0.0 <= shrunk_h_score(rows, labels) <= 2.0 + 1e-9


@FEW
@given(seeds)
def test_an_h_score_does_not_know_how_features_are_turned_moved_or_scaled(seed: int) -> None:
    rows, labels = drawn(seed)
    moved = 7.0 * rows @ turned(rows.shape[1], seed + 1) + 3.0
    assert shrunk_h_score(moved, labels) == pytest.approx(shrunk_h_score(rows, labels), rel=1e-6)


@FEW
@given(seeds)
def test_an_h_score_does_not_know_the_order_of_images_or_names_of_classes(seed: int) -> None:
    rows, labels = drawn(seed)
    order = np.random.default_rng(seed).permutation(len(rows))
    renamed = (labels + 1) % 3
    found = shrunk_h_score(rows[order], renamed[order])
    assert found == pytest.approx(shrunk_h_score(rows, labels), rel=1e-9)


def test_an_h_score_without_shrinkage_is_the_trace_it_is_defined_as() -> None:
    rows, labels = drawn(3, count=20_000, width=4)  # so many images that nothing is shrunk
    covariance = np.cov(rows.T, bias=True)
    means = np.stack([rows[labels == label].mean(axis=0) for label in labels])
    between = np.cov(means.T, bias=True)
    expected = np.trace(np.linalg.solve(covariance, between))
    assert shrunk_h_score(rows, labels) == pytest.approx(expected, rel=5e-3)


def test_features_that_hold_classes_apart_have_the_better_h_score() -> None:
    scores = [shrunk_h_score(*drawn(5, count=120, apart=apart)) for apart in (0.0, 1.0, 4.0)]
    assert scores == sorted(scores)
    assert scores[2] > scores[0] + 0.5


@pytest.mark.parametrize("rows", [np.zeros((8, 3)), np.ones((8, 3))])
def test_features_that_are_all_the_same_have_an_h_score_of_nothing(rows: Array) -> None:
    assert shrunk_h_score(rows, np.arange(8) % 2) == 0.0


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (np.zeros((0, 3)), np.zeros(0, dtype=np.int64)),
        (np.zeros((4, 3)), np.zeros(3, dtype=np.int64)),
        (np.full((4, 3), np.nan), np.zeros(4, dtype=np.int64)),
    ],
)
def test_what_gives_no_h_score_is_refused(rows: Array, labels: Labels) -> None:
    with pytest.raises(InputError, match="no H-score"):
        shrunk_h_score(rows, labels)


@FEW
@given(seeds, st.integers(2, 30), st.integers(2, 30))
def test_a_distance_is_symmetric_and_nothing_to_itself(seed: int, one: int, other: int) -> None:
    world = World(seed=seed, width=12)
    first = TaskGaussian.of(world.record(0, one).last)
    second = TaskGaussian.of(world.record(1, other).last)
    there, back = bhattacharyya(first, second), bhattacharyya(second, first)
    assert there == pytest.approx(back, rel=1e-9)
    assert there > 0.0
    assert bhattacharyya(first, first) == pytest.approx(0.0, abs=1e-9)


def test_the_gaussian_of_a_record_is_that_of_its_features() -> None:
    random = np.random.default_rng(0)
    rows, labels = (
        random.standard_normal((50_000, 3)) * (0.1, 0.2, 0.3) + 0.1,
        np.arange(50_000) % 2,
    )
    means = np.stack([rows[labels == label].mean(axis=0) for label in range(2)])
    centred = rows - means[labels]
    record = TaskStatistics(
        counts=np.bincount(labels), means=means, scatter=triangle(centred.T @ centred),
        calibration=rows[:1],
    )  # fmt: skip
    found = TaskGaussian.of(record)
    assert found.mean == pytest.approx(rows.mean(axis=0))
    assert found.covariance == pytest.approx(np.cov(rows.T, bias=True), abs=1e-5)
    expected = np.linalg.slogdet(found.covariance).logabsdet
    assert found.log_determinant == pytest.approx(expected, abs=1e-4)


def test_a_distance_grows_with_how_far_tasks_lie_apart() -> None:
    found = []
    for domain in (0.0, 1.0, 4.0):
        world = World(width=12, domain=domain)
        first, second = (TaskGaussian.of(world.record(task, 60).last) for task in (0, 1))
        found.append(bhattacharyya(first, second))
    assert found == sorted(found)
    assert found[2] > 2 * found[0]
