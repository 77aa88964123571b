"""The routing record is a function of a task's images alone, and equals its own formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor

from adapterbank.errors import InputError
from adapterbank.routing.record import (
    RECORD_CALIBRATION,
    RoutingRecord,
    as_record,
    read_record,
    task_record,
    unpack,
)
from tests.routing_samples import earlier_record

CLASSES = 4
Array = NDArray[np.float64]


BLOCKS = (2, 4)


def drawn(count: int = 20, width: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, len(BLOCKS), width, generator=generator)
    return features, torch.arange(count) % CLASSES


def unit(features: Tensor | Array) -> Array:
    x = features.double().numpy() if isinstance(features, Tensor) else features
    scaled: Array = x / np.linalg.norm(x, axis=2, keepdims=True)
    return scaled


def unit_float16(features: Tensor) -> Array:
    return unit(features).astype(np.float16).astype(np.float64)


def summary(features: Tensor, labels: Tensor) -> RoutingRecord:
    """Every part of a record, as it is read."""
    return as_record(task_record(features, labels, CLASSES, features, BLOCKS), where="drawn")


def by_formula(features: Tensor, labels: Tensor) -> tuple[Array, Array]:
    """Class means (L, C, D) and within-class scatters (L, D, D)."""
    z, y = unit(features), labels.numpy()
    means = np.stack([z[y == c].mean(0) for c in range(CLASSES)])
    centred = z - means[y]
    return means.swapaxes(0, 1), np.einsum("nli,nlj->lij", centred, centred)


@given(seed=st.integers(0, 10**6), repeated=st.booleans())
def test_the_order_of_images_changes_no_bit(seed: int, *, repeated: bool) -> None:
    features, labels = drawn(seed=seed)
    if repeated:  # the same image in several classes
        features[5:11] = features[4].clone()
    held, _ = drawn(count=9, seed=seed + 1)
    generator = torch.Generator().manual_seed(seed)
    order, other = (torch.randperm(n, generator=generator) for n in (20, 9))
    one = task_record(features, labels, CLASSES, held, BLOCKS)
    two = task_record(features[order], labels[order], CLASSES, held[other], BLOCKS)
    assert {k: v.tobytes() for k, v in one.items()} == {k: v.tobytes() for k, v in two.items()}


@pytest.mark.parametrize("width", [3, 6, 40], ids=["fewer", "few", "more than images"])
def test_counts_means_and_scatter_are_those_of_the_formulas(width: int) -> None:
    features, labels = drawn(width=width)
    record = summary(features, labels)
    means, scatters = by_formula(features, labels)
    assert record.blocks == BLOCKS
    np.testing.assert_array_equal(record.counts, [5, 5, 5, 5])
    for block, mean, scatter in zip(BLOCKS, means, scatters, strict=True):
        layer = record.layers[block]
        np.testing.assert_allclose(layer.means, mean, atol=2e-5)  # 16 bits of at most 1
        size = np.abs(scatter).max()
        # 8 bits of each row of a factor
        np.testing.assert_allclose(unpack(layer.scatter, width), scatter, atol=0.02 * size)


def test_held_out_features_are_kept_to_a_hundredth_of_the_spread_of_each_dimension() -> None:
    features, labels = drawn()
    kept = summary(features, labels).calibration(BLOCKS)
    given = unit(features)
    order = [np.abs(kept - row).sum(axis=(1, 2)).argmin() for row in given]
    assert sorted(order) == list(range(20))
    step = (given.max(axis=0) - given.min(axis=0)) / 254
    assert (np.abs(kept[order] - given) <= 2 * step + 1e-6).all()  # and one for the length


def test_new_features_are_rounded_as_the_held_out_ones_were() -> None:
    features, labels = drawn()
    layer = summary(features, labels).last
    np.testing.assert_allclose(layer.as_stored(layer.calibration), layer.calibration, atol=2e-3)
    given = unit(features)[:, -1]
    stored = {row.tobytes() for row in layer.calibration}
    assert {row.tobytes() for row in layer.as_stored(given)} == stored


def test_a_record_of_the_earlier_layout_says_what_it_said() -> None:
    features, labels = drawn()
    means, scatters = by_formula(features, labels)
    record = as_record(
        earlier_record(
            features.double().numpy(), labels.numpy(), features.double().numpy(), BLOCKS
        ),
        where="earlier",
    )
    held = unit(unit_float16(features))
    for n, block in enumerate(BLOCKS):
        layer = record.layers[block]
        np.testing.assert_array_equal(layer.means, means[n])
        np.testing.assert_allclose(unpack(layer.scatter, 6), scatters[n], atol=1e-14)  # sums
        np.testing.assert_array_equal(layer.calibration, held[:, n])
        np.testing.assert_array_equal(layer.as_stored(unit(features)[:, n]), held[:, n])


def test_a_record_is_read_from_a_file_as_it_was_made() -> None:
    features, labels = drawn()
    arrays = task_record(features, labels, CLASSES, features[:9], BLOCKS)
    made, stored = as_record(arrays, where="made"), read_record(save(arrays), where="stored")
    for block in BLOCKS:
        one, other = made.layers[block], stored.layers[block]
        np.testing.assert_array_equal(one.means, other.means)
        np.testing.assert_array_equal(one.scatter, other.scatter)
        np.testing.assert_array_equal(one.calibration, other.calibration)


def test_a_record_of_a_small_task_takes_a_sixth_of_what_it_took() -> None:
    features, _ = drawn(count=200, width=384)
    labels = torch.arange(200) % 10
    arrays = task_record(features, labels, 10, features[:80], BLOCKS)
    assert len(save(arrays)) < 202_000  # 1,367,576 before


def test_the_length_of_a_feature_does_not_matter() -> None:
    features, labels = drawn()
    one = task_record(features, labels, CLASSES, features, BLOCKS)
    two = task_record(features * 4.0, labels, CLASSES, features * 0.25, BLOCKS)  # exact in binary
    assert {k: v.tobytes() for k, v in one.items()} == {k: v.tobytes() for k, v in two.items()}


def test_a_class_of_one_image_is_its_own_mean_and_scatters_nothing() -> None:
    features, _ = drawn(count=3)
    record = task_record(features, torch.arange(3), 3, features, BLOCKS)
    layers = as_record(record, where="drawn").layers.values()
    means = np.stack([layer.means for layer in layers], axis=1)
    np.testing.assert_allclose(means, unit(features), atol=2e-5)
    assert not any(layer.scatter.any() for layer in layers)


@pytest.mark.parametrize("count", [1, RECORD_CALIBRATION, RECORD_CALIBRATION + 50])
def test_held_out_features_are_kept_up_to_a_limit(count: int) -> None:
    features, labels = drawn()
    held, _ = drawn(count=count, seed=9)
    kept = task_record(features, labels, CLASSES, held, BLOCKS)["calibration"]
    assert kept.shape == (len(BLOCKS), min(count, RECORD_CALIBRATION), 6)
    # Layers stay together: the same image has the same place in each.
    record = as_record(task_record(features, labels, CLASSES, held, BLOCKS), where="drawn")
    rows, given = record.calibration(BLOCKS), unit(held)
    nearest = [np.abs(given - row).max(axis=(1, 2)).min() for row in rows]
    assert max(nearest) < 0.01


def test_a_class_without_an_image_is_named() -> None:
    features, labels = drawn()
    with pytest.raises(InputError, match="4"):
        task_record(features, labels, CLASSES + 1, features, BLOCKS)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")], ids=["zero", "nan", "inf"])
@pytest.mark.parametrize("where", ["train", "held out"])
def test_a_feature_without_a_direction_is_refused(bad: float, where: str) -> None:
    features, labels = drawn()
    broken = features.clone()
    broken[3] = bad
    train, held = (broken, features) if where == "train" else (features, broken)
    with pytest.raises(InputError, match="zero or not finite"):
        task_record(train, labels, CLASSES, held, BLOCKS)
