"""The routing record is a function of a task's images alone, and equals its own formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from adapterbank.errors import InputError
from adapterbank.routing.record import RECORD_CALIBRATION, task_record

CLASSES = 4
Array = NDArray[np.float64]


BLOCKS = (2, 4)


def drawn(count: int = 20, width: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, len(BLOCKS), width, generator=generator)
    return features, torch.arange(count) % CLASSES


def unit(features: Tensor) -> Array:
    x: Array = features.double().numpy()
    scaled: Array = x / np.linalg.norm(x, axis=2, keepdims=True)
    return scaled


def summary(features: Tensor, labels: Tensor) -> dict[str, Array]:
    """Every part of a record, as float64."""
    record = task_record(features, labels, CLASSES, features, BLOCKS)
    return {name: record[name].astype(np.float64) for name in record}


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


def test_counts_means_and_fourth_moment_are_those_of_the_formulas() -> None:
    features, labels = drawn()
    record = summary(features, labels)
    z, y = unit(features), labels.numpy()
    means = np.stack([z[y == c].mean(0) for c in range(CLASSES)], axis=1)
    fourth = [
        sum(float(np.linalg.norm(row - layer[c])) ** 4 for row, c in zip(rows, y, strict=True))
        for rows, layer in zip(z.swapaxes(0, 1), means, strict=True)
    ]
    np.testing.assert_array_equal(record["blocks"], BLOCKS)
    np.testing.assert_array_equal(record["counts"], [5, 5, 5, 5])
    # float64 sums in another order
    np.testing.assert_allclose(record["means"], means, atol=1e-14)
    np.testing.assert_allclose(record["fourth"], fourth, rtol=1e-12)


def test_the_scatter_is_packed_as_an_upper_triangle_by_rows() -> None:
    features, labels = drawn(width=3)
    z, y = unit(features), labels.numpy()
    centred = z - np.stack([z[y == c].mean(0) for c in range(CLASSES)])[y]
    cells = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    expected = [
        [layer[:, row] @ layer[:, column] for row, column in cells]
        for layer in centred.swapaxes(0, 1)
    ]
    # float64 sums in another order
    np.testing.assert_allclose(summary(features, labels)["scatter"], expected, atol=1e-14)


def test_the_length_of_a_feature_does_not_matter() -> None:
    features, labels = drawn()
    one = task_record(features, labels, CLASSES, features, BLOCKS)
    two = task_record(features * 4.0, labels, CLASSES, features * 0.25, BLOCKS)  # exact in binary
    assert {k: v.tobytes() for k, v in one.items()} == {k: v.tobytes() for k, v in two.items()}


def test_a_class_of_one_image_is_its_own_mean_and_scatters_nothing() -> None:
    features, _ = drawn(count=3)
    record = task_record(features, torch.arange(3), 3, features, BLOCKS)
    np.testing.assert_array_equal(record["means"], unit(features).swapaxes(0, 1))
    assert not record["scatter"].any()
    assert not record["fourth"].any()


@pytest.mark.parametrize("count", [1, RECORD_CALIBRATION, RECORD_CALIBRATION + 50])
def test_held_out_features_are_kept_up_to_a_limit(count: int) -> None:
    features, labels = drawn()
    held, _ = drawn(count=count, seed=9)
    kept = task_record(features, labels, CLASSES, held, BLOCKS)["calibration"]
    assert kept.shape == (len(BLOCKS), min(count, RECORD_CALIBRATION), 6)
    # Layers stay together: the same image has the same place in each.
    rounded = {row.tobytes() for row in unit(held).astype(np.float16)}
    assert {row.tobytes() for row in kept.swapaxes(0, 1)} <= rounded


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
