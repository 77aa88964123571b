"""The part of a version that routers are built from: class statistics of frozen features.

Features are taken after more than one block of the same pass: early ones tell domains apart, late
ones classes.

A router over many tasks is a function of these records alone, so that adding a task touches no
other, and removing it equals never having added it. Sums are taken in float64, two passes, over
images in the order of their own content, so that the order of files changes no bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapterbank.errors import InputError

RECORD_CALIBRATION = 256  # held-out features kept for thresholds


def task_record(
    features: Tensor,
    labels: Tensor,
    classes: int,
    held_out: Tensor,
    blocks: Sequence[int],
) -> dict[str, NDArray[np.generic]]:
    """Summarise a task's frozen features.

    Args:
        features: (n, L, D) frozen features of the training images, after each of L blocks.
        labels: (n,) class indices; every class must occur.
        classes: C.
        held_out: (m, L, D) frozen features of images that no fit has seen.
        blocks: after which blocks, counted from 1.

    Returns:
        ``blocks`` (L,) int64; ``counts`` (C,) int64; ``means`` (L, C, D) float64 class means of
        L2-normalised features; ``scatter`` (L, D·(D+1)/2) float64, upper triangles by rows of the
        within-class scatter; ``fourth`` (L,) float64, the sums of ‖z − μ_c‖⁴ that Ledoit–Wolf
        shrinkage needs; ``calibration`` (L, ≤ 256, D) float16, held-out features.

    Raises:
        InputError: a feature has no direction, is not finite, or a class has no image.
    """
    z, y = _unit(features), labels.numpy()
    order = _content_order(z, y)
    z, y = z[order], y[order]
    counts = np.bincount(y, minlength=classes)
    if (counts == 0).any():
        raise InputError(f"classes without a training image: {np.flatnonzero(counts == 0)}")
    means = np.stack([z[y == label].mean(axis=0) for label in range(classes)], axis=1)
    held = _unit(held_out)
    kept = held[_content_order(held)][:RECORD_CALIBRATION].astype(np.float16)
    layers = [_spread(z[:, layer], y, means[layer]) for layer in range(len(blocks))]
    return {
        "blocks": np.array(blocks, dtype=np.int64),
        "counts": counts.astype(np.int64),
        "means": means,
        "scatter": np.stack([scatter for scatter, _ in layers]),
        "fourth": np.array([fourth for _, fourth in layers]),
        "calibration": np.ascontiguousarray(kept.swapaxes(0, 1)),
    }


def _spread(
    z: NDArray[np.float64], y: NDArray[np.int64], means: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """How features (n, D) after one block scatter around the means (C, D) of their classes."""
    centred = z - means[y]
    scatter = centred.T @ centred
    squared = (centred**2).sum(axis=1)
    return scatter[np.triu_indices(z.shape[1])], float((squared**2).sum())


def _unit(features: Tensor) -> NDArray[np.float64]:
    z = features.to(torch.float64).numpy()
    norms = np.linalg.norm(z, axis=-1, keepdims=True)
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
