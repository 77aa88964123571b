"""The part of a version that routers are built from: class statistics of frozen features.

A router over many tasks is a function of these records alone, so that adding a task touches no
other, and removing it equals never having added it. Sums are taken in float64, two passes, over
images in the order of their own content, so that the order of files changes no bit.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapterbank.errors import InputError

__all__ = ["RECORD_CALIBRATION", "task_record"]

RECORD_CALIBRATION = 256  # held-out features kept for thresholds


def task_record(
    features: Tensor, labels: Tensor, classes: int, held_out: Tensor
) -> dict[str, NDArray[np.generic]]:
    """Summarise a task's frozen features.

    Args:
        features: (n, D) frozen features of the training images.
        labels: (n,) class indices; every class must occur.
        classes: C.
        held_out: (m, D) frozen features of images that no fit has seen.

    Returns:
        ``counts`` (C,) int64; ``means`` (C, D) float64 class means of L2-normalised features;
        ``scatter`` (D·(D+1)/2,) float64, upper triangle by rows of the within-class scatter;
        ``fourth`` (1,) float64, the sum of ‖z − μ_c‖⁴ that Ledoit–Wolf shrinkage needs;
        ``calibration`` (≤ 256, D) float16, held-out features.

    Raises:
        InputError: a feature has no direction, is not finite, or a class has no image.
    """
    z = _unit(features)
    y = labels.numpy()
    order = _content_order(z, y)
    z, y = z[order], y[order]
    counts = np.bincount(y, minlength=classes)
    if (counts == 0).any():
        raise InputError(f"classes without a training image: {np.flatnonzero(counts == 0)}")
    means = np.stack([z[y == label].mean(axis=0) for label in range(classes)])
    centred = z - means[y]
    scatter = centred.T @ centred
    squared = (centred**2).sum(axis=1)
    held = _unit(held_out)
    return {
        "counts": counts.astype(np.int64),
        "means": means,
        "scatter": scatter[np.triu_indices(z.shape[1])],
        "fourth": np.array([(squared**2).sum()]),
        "calibration": held[_content_order(held)][:RECORD_CALIBRATION].astype(np.float16),
    }


def _unit(features: Tensor) -> NDArray[np.float64]:
    z = features.to(torch.float64).numpy()
    norms = np.linalg.norm(z, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise InputError("a frozen feature is zero or not finite: the backbone cannot route")
    unit: NDArray[np.float64] = z / norms
    return unit


def _content_order(
    z: NDArray[np.float64], labels: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    digests = [hashlib.sha256(row.tobytes()).digest() for row in z]
    # Equal images may stand in several classes, so the label is part of what is sorted by.
    keys = list(zip(digests, [0] * len(z) if labels is None else labels.tolist(), strict=True))
    return np.array(sorted(range(len(z)), key=keys.__getitem__), dtype=np.int64)
