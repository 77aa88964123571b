"""What a router adds up over blocks: how near rows are to classes, and to the background."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from adapterbank.errors import InputError
from adapterbank.routing.metric import Spread
from adapterbank.routing.mixtures import Mixtures
from adapterbank.routing.statistics import Floats


def unit_rows(features: NDArray[np.floating]) -> Floats:
    """Scale features (B, …, D) to length one, in float64.

    Raises:
        InputError: one is zero, NaN or infinite.
    """
    rows = np.asarray(features, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        wrong = ~np.isfinite(lengths) | (lengths == 0)
        bad = np.flatnonzero(wrong.reshape(len(rows), -1).any(axis=1))
        raise InputError(f"features of images {bad[:5].tolist()} are zero or not finite")
    scaled: Floats = rows / lengths
    return scaled


def whiten(spreads: Sequence[Spread], rows: Floats) -> Floats:
    """Whiten (B, L, D) rows by the metric within classes of each block."""
    each = [spread.within.whiten(rows[:, layer]) for layer, spread in enumerate(spreads)]
    return np.stack(each, axis=1)


def nearness(white: Floats, prototypes: Floats) -> Floats:
    """(B,) log of the mean of exp(−½ squared distance) to class means, summed over blocks.

    Args:
        white: (B, L, D) whitened rows.
        prototypes: (L, C, D) whitened class means.
    """
    found = np.zeros(len(white))
    for layer, means in enumerate(prototypes):
        rows = white[:, layer]
        squared = (rows**2).sum(axis=1)[:, None] + (means**2).sum(axis=1)
        distances = np.maximum(squared - 2 * rows @ means.T, 0.0)
        found += logsumexp(-distances / 2, axis=1) - np.log(len(means))
    return found


def familiarity(
    spreads: Sequence[Spread], rows: Floats, white: Floats, prototypes: Floats
) -> Floats:
    """(B,) how much nearer rows are to class means than to the background, summed over blocks.

    Args:
        spreads: after each block.
        rows: (B, L, D) of length one.
        white: the same, whitened.
        prototypes: (L, C, D) whitened class means.
    """
    return 2 * nearness(white, prototypes) + background(spreads, rows)


def background(spreads: Sequence[Spread], rows: Floats) -> Floats:
    """(B,) squared distance of (B, L, D) rows to the background, summed over blocks."""
    squared = np.zeros(len(rows))
    for layer, spread in enumerate(spreads):
        squared += (spread.background.whiten(rows[:, layer]) ** 2).sum(axis=1)
    return squared


def sum_scores(mixtures: Sequence[Mixtures], white: Floats) -> Floats:
    """(B, T) log-likelihoods of whitened (B, L, D) rows, summed over blocks."""
    total = np.zeros(())
    for layer, one in enumerate(mixtures):
        total = total + one.score(white[:, layer])
    return total
