"""The linear probe is ridge regression, whoever computes it, and picks its own strength."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge as SklearnRidge
from torch import Tensor

from adapterbank.training.ridge import STRENGTHS, Ridge, fit_ridge

Array = NDArray[np.float64]


def samples(count: int, width: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw features of three classes, some way apart, with columns of very different scale."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    centres = generator.standard_normal((3, width))
    features = centres[labels] + noise * generator.standard_normal((count, width))
    features = features * 10.0 ** generator.uniform(-2, 2, width) + generator.uniform(-5, 5, width)
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)


def standardised(features: Tensor) -> Array:
    x: Array = features.double().numpy()
    scaled: Array = (x - x.mean(0)) / (x.std(0) + 1e-6)
    return scaled


def one_hot(labels: Tensor) -> Array:
    rows: Array = np.eye(3)[labels.numpy()]
    return rows


def left_out_error(x: Array, y: Array, alpha: float) -> float:
    """Squared error of predicting each row from a fit to all others."""
    errors = []
    for row in range(len(x)):
        rest = np.arange(len(x)) != row
        fit = SklearnRidge(alpha=alpha).fit(x[rest], y[rest])
        errors.append((fit.predict(x[row : row + 1])[0] - y[row]) ** 2)
    return float(np.mean(errors))


@pytest.mark.parametrize(
    ("count", "width"), [(60, 8), (30, 30), (12, 40)], ids=["tall", "square", "fewer images"]
)
@pytest.mark.parametrize("noise", [0.1, 2.0])
def test_scores_are_those_of_scikit_learns_ridge(count: int, width: int, noise: float) -> None:
    features, labels = samples(count, width, noise)
    ridge = fit_ridge(features, labels, 3)
    x, y = standardised(features), one_hot(labels)
    expected = SklearnRidge(alpha=ridge.strength * width).fit(x, y).predict(x)
    # Weights are rounded to float32 and scores are sums of `width` products of size up to ~500.
    np.testing.assert_allclose(ridge.scores(features).numpy(), expected, atol=1e-3)


@pytest.mark.parametrize(("count", "width"), [(6, 4), (18, 12)])
@pytest.mark.parametrize("noise", [0.1, 1.0, 5.0])
def test_the_strength_is_the_one_that_predicts_left_out_images_best(
    count: int, width: int, noise: float
) -> None:
    features, labels = samples(count, width, noise, seed=3)
    x, y = standardised(features), one_hot(labels)
    errors = {strength: left_out_error(x, y, strength * width) for strength in STRENGTHS}
    assert fit_ridge(features, labels, 3).strength == min(errors, key=errors.__getitem__)


def test_noisier_features_are_held_back_more() -> None:
    clean = fit_ridge(*samples(40, 20, 0.1), 3).strength
    noisy = fit_ridge(*samples(40, 20, 10.0), 3).strength
    assert clean < noisy


def test_fewer_images_than_features_are_fitted_and_generalise() -> None:
    features, labels = samples(120, 64, 1.0)
    ridge = fit_ridge(features[:30], labels[:30], 3)
    assert ridge.weight.isfinite().all()
    accuracy = (ridge.scores(features[30:]).argmax(1) == labels[30:]).double().mean()
    assert accuracy > 0.9  # a third by chance


def test_repeated_and_constant_columns_do_no_harm() -> None:
    features, labels = samples(30, 6, 0.5)
    wider = torch.cat((features, features, torch.full((30, 2), 7.0)), dim=1)
    scores = fit_ridge(wider, labels, 3).scores(wider)
    assert scores.isfinite().all()
    assert torch.equal(scores.argmax(1), fit_ridge(features, labels, 3).scores(features).argmax(1))


def test_features_that_say_nothing_give_each_class_its_share() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    ridge = fit_ridge(torch.ones(4, 5), labels, 2)
    # float32 rounding of the shares
    torch.testing.assert_close(
        ridge.scores(torch.ones(1, 5)), torch.tensor([[0.75, 0.25]]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(("scale", "shift"), [(1000.0, 0.0), (0.01, 0.0), (1.0, 3.0)])
def test_scale_and_origin_of_the_features_do_not_matter(scale: float, shift: float) -> None:
    features, labels = samples(40, 8, 1.0)
    plain, moved = fit_ridge(features, labels, 3), fit_ridge(features * scale + shift, labels, 3)
    assert moved.strength == plain.strength
    # float32 inputs: shifting rounds away digits of the smallest columns (about 1e-2 wide).
    torch.testing.assert_close(
        moved.scores(features * scale + shift), plain.scores(features), atol=1e-3, rtol=0
    )


def test_scores_add_up_to_one_over_the_classes() -> None:
    features, labels = samples(30, 8, 1.0)
    total = fit_ridge(features, labels, 3).scores(features).sum(1)
    torch.testing.assert_close(total, torch.ones(30), atol=1e-3, rtol=0)  # as above


def test_the_order_of_images_does_not_matter() -> None:
    features, labels = samples(40, 8, 1.0)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    one, other = fit_ridge(features, labels, 3), fit_ridge(features[order], labels[order], 3)
    assert one.strength == other.strength
    # float64 sums in another order, then float32
    torch.testing.assert_close(one.weight, other.weight, atol=1e-6, rtol=1e-5)


def test_a_fit_is_float32_and_maps_features_by_weight_and_bias() -> None:
    features, labels = samples(30, 8, 1.0)
    ridge = fit_ridge(features, labels, 3)
    assert (ridge.weight.dtype, ridge.bias.dtype) == (torch.float32, torch.float32)
    assert (ridge.weight.shape, ridge.bias.shape) == ((3, 8), (3,))
    made = Ridge(weight=torch.eye(2), bias=torch.tensor([0.0, 1.0]), strength=1.0)
    assert torch.equal(made.scores(torch.tensor([[2.0, 3.0]])), torch.tensor([[2.0, 4.0]]))
