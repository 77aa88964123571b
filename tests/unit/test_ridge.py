"""The linear probe is ridge regression, whoever computes it, and chooses by images left out."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge as SklearnRidge
from torch import Tensor
from torch.nn import functional

from adapterbank.training import ridge as ridge_module
from adapterbank.training.ridge import (
    STRENGTHS,
    TEMPERATURES,
    USUAL_STRENGTH,
    USUAL_TEMPERATURE,
    Ridge,
    best_temperature,
    fit_ridge,
)

Array = NDArray[np.float64]
GRID = [10.0 ** (power / 20) for power in range(61)]  # temperatures


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


def left_out(features: Tensor, labels: Tensor, strength: float) -> Tensor:
    """Scores of each row from a fit to all others, one fit after the other."""
    x, y = standardised(features), one_hot(labels)
    scores = []
    for row in range(len(x)):
        rest = np.arange(len(x)) != row
        fit = SklearnRidge(alpha=strength * x.shape[1]).fit(x[rest], y[rest])
        scores.append(fit.predict(x[row : row + 1])[0])
    return torch.from_numpy(np.array(scores))


def losses(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row at the best of many temperatures."""
    tried = [functional.cross_entropy(t * scores, labels, reduction="none") for t in GRID]
    return min(tried, key=lambda each: float(each.mean()))


def mean_probability(ridge: Ridge, features: Tensor) -> float:
    logits = ridge.scores(features) * ridge.temperature
    return float(logits.softmax(1).amax(1).mean())


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


@pytest.mark.parametrize(("count", "width"), [(9, 4), (18, 12), (30, 60)])
@pytest.mark.parametrize("noise", [0.1, 1.0, 5.0])
def test_the_strength_predicts_left_out_images_better_than_the_usual_one_by_a_standard_error(
    count: int, width: int, noise: float
) -> None:
    features, labels = samples(count, width, noise, seed=3)
    ridge = fit_ridge(features, labels, 3)
    of = {one: losses(left_out(features, labels, one), labels) for one in STRENGTHS}
    gain = {one: of[USUAL_STRENGTH] - loss for one, loss in of.items()}
    # The grid of temperatures, and one image more that the fit counts, move a loss by this much.
    slack = 0.03
    chosen = gain[ridge.strength]
    assert (
        ridge.strength == USUAL_STRENGTH
        or chosen.mean() > chosen.std(correction=0) / count**0.5 - slack
    )
    surely = [
        float(each.mean())
        for each in gain.values()
        if each.mean() > each.std(correction=0) / count**0.5 + slack
    ]
    assert float(chosen.mean()) >= max(surely, default=0.0) - slack


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("noise", [0.1, 1.0, 5.0])
def test_too_few_images_of_a_class_choose_no_strength(images: int, noise: float) -> None:
    features, labels = samples(3 * images, 40, noise)
    assert fit_ridge(features, labels, 3).strength == USUAL_STRENGTH


def test_one_image_of_each_class_chooses_no_temperature() -> None:
    assert fit_ridge(*samples(3, 40, 1.0), 3).temperature == USUAL_TEMPERATURE


def test_a_class_of_one_image_does_not_choose_for_the_others() -> None:
    features, labels = samples(60, 8, 1.0)
    labels[0] = 3
    without = fit_ridge(features, labels % 3, 3)
    assert fit_ridge(features, labels, 4).temperature == pytest.approx(without.temperature, rel=0.3)


@pytest.mark.parametrize("noise", [0.3, 1.0, 2.0])
@pytest.mark.parametrize(("count", "width"), [(60, 8), (150, 64), (90, 200)])
def test_probabilities_are_as_high_as_answers_are_right(
    count: int, width: int, noise: float
) -> None:
    features, labels = samples(count + 3000, width, noise * width**0.5 / 3)
    ridge = fit_ridge(features[:count], labels[:count], 3)
    unseen = features[count:]
    right = float((ridge.scores(unseen).argmax(1) == labels[count:]).double().mean())
    assert mean_probability(ridge, unseen) == pytest.approx(right, abs=0.12)  # of few left out


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_no_other_temperature_suits_better(factor: float) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    scores = functional.one_hot(labels, 3) + 0.5 * torch.randn(90, 3, generator=generator)
    best = best_temperature(scores, labels)
    loss = functional.cross_entropy(best * scores, labels)
    assert loss < functional.cross_entropy(best * factor * scores, labels)


@pytest.mark.parametrize("count", [6, 60, 600])
def test_scores_that_are_all_right_are_as_sure_as_their_number_allows(count: int) -> None:
    labels = torch.arange(count) % 3
    scores = functional.one_hot(labels, 3).double()
    given = (best_temperature(scores, labels) * scores).softmax(1).amax(1).mean()
    assert float(given) == pytest.approx((count + 1 / 3) / (count + 1), abs=1e-6)


def test_scores_that_are_all_wrong_stay_scores() -> None:
    labels = torch.arange(12) % 3
    scores = functional.one_hot((labels + 1) % 3, 3).double()
    assert best_temperature(scores, labels) == pytest.approx(TEMPERATURES[0])


def test_noisier_features_are_held_back_more() -> None:
    clean = fit_ridge(*samples(200, 100, 0.1), 3).strength
    noisy = fit_ridge(*samples(200, 100, 2.0), 3).strength
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


def test_scores_of_one_strength_are_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = samples(60, 8, 1.0)
    choose, alive = ridge_module.best_temperature, list[int]()

    def count(scores: Tensor, labels: Tensor) -> float:
        tensors = [found for found in gc.get_objects() if issubclass(type(found), Tensor)]
        alive.append(sum(found.shape == scores.shape for found in tensors))
        return choose(scores, labels)

    monkeypatch.setattr(ridge_module, "best_temperature", count)
    fit_ridge(features, labels, int(labels.max()) + 1)
    assert max(alive) < len(STRENGTHS)


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
    made = Ridge(weight=torch.eye(2), bias=torch.tensor([0.0, 1.0]), strength=1.0, temperature=1.0)
    assert torch.equal(made.scores(torch.tensor([[2.0, 3.0]])), torch.tensor([[2.0, 4.0]]))
