"""Closed-form ridge regression on features: the linear probe, and the start of trained heads.

Features are standardised, targets are one-hot, the intercept is not penalised. Strength and
temperature are chosen by the scores that each image has in the fit to all others, which a singular
value decomposition gives for every strength at once (Golub, Heath & Wahba 1979). No validation
image is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# λ in units of D, half a decade apart: standardised features have about D as squared length.
STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-4, 6))
USUAL_STRENGTH = STRENGTHS[2]  # 0.1

# Regression scores are about 1 for the right class and 0 for others; as logits they are too flat.
USUAL_TEMPERATURE = 5.0
TEMPERATURES = (1.0, 1000.0)  # least and largest

# An image left out is judged by what is left of its class. Of two images half of the class is gone:
# too little to choose a strength by. Of one, all of it.
_TO_CHOOSE, _TO_SCALE = 3, 2


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """A fitted linear classifier."""

    weight: Tensor  # (C, D)
    bias: Tensor  # (C,)
    strength: float  # the chosen λ / D
    temperature: float  # what scores are multiplied by to be logits

    def scores(self, features: Tensor) -> Tensor:
        """Regression scores (B, C) of features (B, D): about 1 for the right class, else 0."""
        return functional.linear(features, self.weight, self.bias)


def fit_ridge(features: Tensor, labels: Tensor, classes: int) -> Ridge:
    """Fit ridge classifiers of every strength and keep the one that generalises best.

    The loss of an image left out is the cross-entropy of its scores, at the temperature that suits
    the images left out best. Another strength than 0.1 has to be better by a standard error: with
    few images of a class the losses say little.

    Args:
        features: (n, D).
        labels: (n,) class indices.
        classes: C.

    Returns:
        The classifier in float32.
    """
    x, y = features.double(), functional.one_hot(labels, classes).double()
    mean, std = x.mean(0), x.std(0, correction=0) + 1e-6
    target_mean = y.mean(0)
    u, s, vt = torch.linalg.svd((x - mean) / std, full_matrices=False)
    projected = u.mT @ (y - target_mean)  # (rank, C)

    def left_out(strength: float) -> Tensor:
        """Scores (n, C); those of all strengths at once would take too much memory."""
        shrink = s.square() / (s.square() + strength * x.shape[1])
        residual = y - target_mean - u @ (shrink[:, None] * projected)
        # Of the fit with its intercept: how much each image decides its own prediction.
        leverage = u.square() @ shrink + 1.0 / len(x)
        scores: Tensor = y - residual / (1.0 - leverage)[:, None].clamp_min(1e-12)
        return scores

    strength, temperature = _choose(left_out, labels)
    factor = s / (s.square() + strength * x.shape[1])
    weight = (vt.mT @ (factor[:, None] * projected)).mT / std  # (C, D)
    bias = target_mean - weight @ mean
    return Ridge(
        weight=weight.float().contiguous(),
        bias=bias.float(),
        strength=strength,
        temperature=temperature,
    )


def _choose(left_out: Callable[[float], Tensor], labels: Tensor) -> tuple[float, float]:
    """Choose strength and temperature by the scores (n, C) of images left out at a strength."""
    images = torch.bincount(labels)[labels]  # of each image's class
    usual = chosen = STRENGTHS.index(USUAL_STRENGTH)
    judged = images >= _TO_CHOOSE
    if judged.any():
        y = labels[judged]
        losses = torch.stack([_losses(left_out(s)[judged], y) for s in STRENGTHS])  # (S, n)
        gain = losses[usual] - losses
        better = gain.mean(1) > gain.std(1, correction=0) / math.sqrt(len(y))
        chosen = int(torch.where(better, gain.mean(1), 0.0).argmax()) if better.any() else usual
    judged = images >= _TO_SCALE
    temperature = USUAL_TEMPERATURE
    if judged.any():
        temperature = best_temperature(left_out(STRENGTHS[chosen])[judged], labels[judged])
    return STRENGTHS[chosen], temperature


def _losses(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each image at the temperature that suits all of them best."""
    logits = scores * best_temperature(scores, labels)
    return functional.cross_entropy(logits, labels, reduction="none")


def best_temperature(scores: Tensor, labels: Tensor) -> float:
    """Find what scores (n, C) must be multiplied by for the smallest mean cross-entropy.

    One image more is counted as if it were of every class alike, or scores that are all right
    would be multiplied without end.

    Args:
        scores: of images that the fit has not seen.
        labels: (n,) class indices.
    """
    count, classes = scores.shape
    targets = functional.one_hot(labels, classes).to(scores.dtype)
    targets = (count * targets + 1.0 / classes) / (count + 1)
    wanted = (targets * scores).sum()
    low, high = map(math.log, TEMPERATURES)
    for _ in range(50):  # the loss is convex: halve where its slope has a root
        middle = (low + high) / 2
        given = ((math.exp(middle) * scores).softmax(1) * scores).sum()
        low, high = (middle, high) if given < wanted else (low, middle)
    return math.exp((low + high) / 2)
