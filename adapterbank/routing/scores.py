"""From whitened features to answers: likelihoods of tasks, familiarity, p-values, probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from adapterbank.errors import InputError
from adapterbank.routing.metric import Spread
from adapterbank.routing.record import Floats

# Squared distances count every dimension as if it were independent, so that the raw scores are
# surer than they should be: by up to the number of dimensions.
TEMPERATURES: tuple[float, ...] = tuple(2.0 ** (power / 2) for power in range(21))
"""What :func:`fit_temperature` tries: 1 to 1,024, half an octave apart."""

_DIGITS = 6  # of a score: two tasks of the same classes score alike, wherever they stand
_CELLS = 4_000_000  # of distances at once


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskPart:
    """What a router keeps of one task."""

    prototypes: Floats  # (L, C, D) whitened class means, after each block
    counts: NDArray[np.int64]  # (C,) images of each
    calibration: Floats  # (K,) scores of held-out images under their own task, sorted


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixtures:
    """An even mixture of normal densities for each task: all classes in one matrix product.

    Given n images of mean p, a class's mean is normal about m + k·(p − m) with variance b/(1 + n·b)
    in each direction, where m is the task's mean, b the variance between classes and
    k = n·b/(1 + n·b); an image adds a variance of 1.
    """

    weights: Floats  # (2D, N) what squares and values of whitened rows are multiplied by
    offsets: Floats  # (N,) what is added; then minus half of it all is a log-density
    starts: NDArray[np.int64]  # (T,) the first class of each task
    sizes: NDArray[np.int64]  # (T,) how many it has

    @classmethod
    def of(cls, parts: Sequence[TaskPart], layer: int, between: Floats) -> Mixtures:
        """Prepare the classes of all tasks after one block.

        Args:
            parts: of the tasks, in their order.
            layer: which of their blocks.
            between: (D,) variance of class means within a task, after that block.
        """
        weights, offsets = [], []
        for part in parts:
            counts, prototypes = part.counts[:, None], part.prototypes[layer]
            centre = part.counts @ prototypes / part.counts.sum()
            trust = counts * between / (1 + counts * between)
            means = centre + trust * (prototypes - centre)
            precision = 1 / (1 + between / (1 + counts * between))
            weights.append(np.concatenate([precision, -2 * means * precision], axis=1))
            offsets.append((means**2 * precision - np.log(precision)).sum(axis=1))
        sizes = np.array([len(part.counts) for part in parts], dtype=np.int64)
        return cls(
            weights=np.ascontiguousarray(np.concatenate(weights).T),
            offsets=np.concatenate(offsets),
            starts=np.cumsum(sizes) - sizes,
            sizes=sizes,
        )

    def score(self, white: Floats) -> Floats:
        """(B, T) log-likelihood, less a constant, of whitened rows (B, D) under each task."""
        step = max(1, _CELLS // len(self.offsets))
        parts = [self._score(white[row : row + step]) for row in range(0, len(white), step)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.sizes)))

    def _score(self, white: Floats) -> Floats:
        values = np.concatenate([white**2, white], axis=1) @ self.weights
        values = (values + self.offsets) / -2
        largest = np.maximum.reduceat(values, self.starts, axis=1)
        shares = np.exp(values - np.repeat(largest, self.sizes, axis=1))
        sums = np.add.reduceat(shares, self.starts, axis=1)
        scores: Floats = np.round(largest + np.log(sums / self.sizes), _DIGITS)
        return scores


def unit_rows(features: NDArray[np.floating]) -> Floats:
    """Scale features (B, …, D) to length one, in float64.

    Raises:
        InputError: one is zero, NaN or infinite.
    """
    rows = np.asarray(features, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    wrong = ~np.isfinite(lengths) | (lengths == 0)
    if wrong.any():
        bad = np.flatnonzero(wrong.reshape(len(rows), -1).any(axis=1))
        raise InputError(f"features of images {bad[:5].tolist()} are zero or not finite")
    scaled: Floats = rows / lengths
    return scaled


def whiten(spreads: Sequence[Spread], rows: Floats) -> Floats:
    """Whiten (B, L, D) rows by the metric within classes of each block."""
    each = [spread.within.whiten(rows[:, layer]) for layer, spread in enumerate(spreads)]
    return np.stack(each, axis=1)


def likelihoods(mixtures: Sequence[Mixtures], white: Floats) -> Floats:
    """(B, T) log-likelihoods of whitened (B, L, D) rows, summed over blocks."""
    total = np.zeros(())
    for layer, mixture in enumerate(mixtures):
        total = total + mixture.score(white[:, layer])
    return total


def nearness(white: Floats, prototypes: Floats) -> Floats:
    """(B,) log of the mean of exp(−½ squared distance) to class means, summed over blocks.

    Args:
        white: (B, L, D) whitened rows.
        prototypes: (L, C, D) whitened class means.
    """
    total = np.zeros(len(white))
    for layer, means in enumerate(prototypes):
        rows = white[:, layer]
        squared = (rows**2).sum(axis=1)[:, None] + (means**2).sum(axis=1)
        distances = np.maximum(squared - 2 * rows @ means.T, 0.0)
        total += logsumexp(-distances / 2, axis=1) - np.log(len(means))
    return total


def background(spreads: Sequence[Spread], rows: Floats) -> Floats:
    """(B,) squared distance of (B, L, D) rows to the background, summed over blocks."""
    squared = np.zeros(len(rows))
    for layer, spread in enumerate(spreads):
        squared += (spread.background.whiten(rows[:, layer]) ** 2).sum(axis=1)
    return squared


def familiarity(spreads: Sequence[Spread], rows: Floats, prototypes: Floats) -> Floats:
    """(B,) how much nearer rows are to class means than to the background, summed over blocks.

    Args:
        spreads: after each block.
        rows: (B, L, D) of length one.
        prototypes: (L, C, D) whitened class means.
    """
    return 2 * nearness(whiten(spreads, rows), prototypes) + background(spreads, rows)


def p_values(calibration: Sequence[Floats], chosen: NDArray[np.int64], scores: Floats) -> Floats:
    """How unusually low a score is among held-out images of the task that was chosen.

    Split conformal prediction (Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random
    World", 2005): where image and calibration images are exchangeable, P(p ≤ α) ≤ α. Nothing is
    promised of images that belong to no task. K calibration images give no p below 1/(K+1).

    Args:
        calibration: for each task its K held-out scores, sorted.
        chosen: (B,) the task of each image.
        scores: (B,) its score under that task.

    Returns:
        (B,) of (1 + held-out scores that are no higher) / (K + 1).
    """
    p = np.ones(len(scores))
    for task in np.unique(chosen):
        rows, own = chosen == task, calibration[task]
        p[rows] = (1 + np.searchsorted(own, scores[rows], side="right")) / (len(own) + 1)
    return p


def fit_temperature(scores: Floats, tasks: NDArray[np.int64]) -> float:
    """Choose the temperature at which held-out images are least surprising.

    Args:
        scores: (n, T) log-likelihoods under each task.
        tasks: (n,) their own tasks.

    Returns:
        The one of ``TEMPERATURES`` with the smallest mean negative log-probability, ties to the
        smaller; 1 where there is nothing to fit it on.
    """
    if not len(tasks):
        return 1.0
    rows = np.arange(len(tasks))
    surprise = [-float(log_softmax(scores / t, axis=1)[rows, tasks].mean()) for t in TEMPERATURES]
    return TEMPERATURES[surprise.index(min(surprise))]
