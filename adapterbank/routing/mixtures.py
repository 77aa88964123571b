"""How likely each task's classes are to give an image: all of them in one matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapterbank.routing.statistics import Floats

_DIGITS = 6  # of a score: two tasks of the same classes score alike, wherever they stand
_CELLS = 4_000_000  # of distances at once


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskPart:
    """What a router keeps of one task.

    Args:
        prototypes: (L, C, D) whitened class means, after each block.
        counts: (C,) images of each.
        calibration: (K,) scores of held-out images under their own task, sorted.
    """

    prototypes: Floats
    counts: NDArray[np.int64]
    calibration: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixtures:
    """An even mixture of normal densities for each task.

    Given n images of mean p, a class's mean is normal about m + k·(p − m) with variance b/(1 + n·b)
    in each direction, where m is the task's mean, b the variance between classes and
    k = n·b/(1 + n·b); an image adds a variance of 1.

    Args:
        weights: (2D, N) what squares and values of whitened rows are multiplied by.
        offsets: (N,) what is added; then minus half of it all is a log-density.
        starts: (T,) the first class of each task.
        sizes: (T,) how many it has.
    """

    weights: Floats
    offsets: Floats
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

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
