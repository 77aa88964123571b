"""Closed-form ridge regression on features: the linear probe, and the start of trained heads.

Features are standardised, targets are one-hot, the intercept is not penalised. The strength is
chosen by the squared error of leaving each image out, which a singular value decomposition gives
for every strength at once (Golub, Heath & Wahba 1979). No validation image is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# λ in units of D, half a decade apart: standardised features have about D as squared length.
STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-4, 6))

# Regression scores are about 1 for the right class and 0 for others; as logits they are too flat.
# Chosen in the recipe study (docs/figures.md).
HEAD_SCALE = 5.0


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """A fitted linear classifier."""

    weight: Tensor  # (C, D)
    bias: Tensor  # (C,)
    strength: float  # the chosen λ / D

    def scores(self, features: Tensor) -> Tensor:
        """Regression scores (B, C) of features (B, D): about 1 for the right class, else 0."""
        return functional.linear(features, self.weight, self.bias)


def fit_ridge(features: Tensor, labels: Tensor, classes: int) -> Ridge:
    """Fit ridge classifiers of every strength and keep the one that generalises best.

    Args:
        features: (n, D).
        labels: (n,) class indices.
        classes: C.

    Returns:
        The classifier with the smallest leave-one-out squared error, in float32.
    """
    x, y = features.double(), functional.one_hot(labels, classes).double()
    mean, std = x.mean(0), x.std(0, correction=0) + 1e-6
    target_mean = y.mean(0)
    u, s, vt = torch.linalg.svd((x - mean) / std, full_matrices=False)
    projected = u.mT @ (y - target_mean)  # (rank, C)
    best_error, best_strength = float("inf"), STRENGTHS[-1]
    for strength in STRENGTHS:
        shrink = s.square() / (s.square() + strength * x.shape[1])
        residual = y - target_mean - u @ (shrink[:, None] * projected)
        # Of the fit with its intercept: how much each image decides its own prediction.
        leverage = u.square() @ shrink + 1.0 / len(x)
        error = float((residual / (1.0 - leverage)[:, None].clamp_min(1e-12)).square().mean())
        if error < best_error:
            best_error, best_strength = error, strength
    factor = s / (s.square() + best_strength * x.shape[1])
    weight = (vt.mT @ (factor[:, None] * projected)).mT / std  # (C, D)
    bias = target_mean - weight @ mean
    return Ridge(weight=weight.float().contiguous(), bias=bias.float(), strength=best_strength)
