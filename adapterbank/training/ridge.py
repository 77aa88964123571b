"""Closed-form ridge regression on features: the linear probe, and the start of trained heads.

With one-hot targets and centred features the solution is ``W = (XᵀX + λI)⁻¹ Xᵀ Y``. λ is chosen
on validation images, the whole path costs one eigendecomposition.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Ridge", "fit_ridge", "fit_temperature"]

# Relative to the mean eigenvalue of the scatter, so that the scale of features does not matter.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """A fitted linear classifier."""

    weight: Tensor  # (C, D)
    bias: Tensor  # (C,)
    strength: float  # relative λ that was chosen

    def scores(self, features: Tensor) -> Tensor:
        """Regression scores (B, C) of features (B, D): about 1 for the right class, else 0."""
        return functional.linear(features, self.weight, self.bias)


def fit_ridge(
    features: Tensor, labels: Tensor, classes: int, held_out: tuple[Tensor, Tensor]
) -> Ridge:
    """Fit ridge classifiers of several strengths and keep the best on held-out images.

    Args:
        features: (B, D).
        labels: (B,) class indices.
        classes: C.
        held_out: features and labels to choose the strength on; the most accurate wins, and of
            equals the one with the smaller squared error.

    Returns:
        The classifier, in float32.
    """
    x = features.double()
    y = functional.one_hot(labels, classes).double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    values, vectors = torch.linalg.eigh(x.mT @ x)
    values = values.clamp_min(0.0)
    projected = vectors.mT @ (x.mT @ y)  # (D, C)
    unit = float(values.mean()) or 1.0
    val_x, val_labels = held_out[0].double(), held_out[1]
    val_y = functional.one_hot(val_labels, classes).double()
    fitted = []
    for strength in STRENGTHS:
        weight = (vectors @ (projected / (values + strength * unit)[:, None])).mT  # (C, D)
        bias = y_mean - weight @ x_mean
        scores = functional.linear(val_x, weight, bias)
        accuracy = float((scores.argmax(1) == val_labels).double().mean())
        error = float((scores - val_y).square().mean())
        fitted.append((accuracy, -error, strength, weight, bias))
    *_, strength, weight, bias = max(fitted, key=lambda one: one[:2])
    return Ridge(weight=weight.float().contiguous(), bias=bias.float(), strength=strength)


def fit_temperature(scores: Tensor, labels: Tensor) -> float:
    """Find the factor that turns regression scores (n, C) into the best-calibrated logits.

    Returns:
        The candidate with the smallest cross-entropy on these labels.
    """
    candidates = [float(2 ** (power / 2)) for power in range(11)]  # 1 … 32
    losses = [float(functional.cross_entropy(scores * scale, labels)) for scale in candidates]
    return candidates[losses.index(min(losses))]
