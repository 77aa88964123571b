"""Are two samples of one kind? Permutation tests, each with an effect that ignores sample size.

All tests relabel the pooled samples, both of them: a null that is drawn from one sample alone
takes its own scatter for nothing and rejects far too often. Nothing that a test uses may therefore
be fitted to one of the samples; what is fitted to both, without a look at which is which, is safe.
So p-values are exact for exchangeable rows, whatever the sizes: P(p ≤ α) ≤ α. Rows that belong
together (frames of one film) are not exchangeable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_WIDTH = 4.0  # of the kernel, in medians
_MEDIAN_ROWS = 1000  # the median of their distances is that of all, near enough
_SLACK = 1e-6  # of a statistic: equal but for rounding counts as equal

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """Which rows of pooled samples are of the first: as they are, and as a null would have them."""

    first: int  # rows of the first sample, m; they come first in the pool
    second: int  # rows of the second, n
    # (m + n, 1 + B) 1 for the first sample, 0 for the second; column 0 is the truth
    marks: NDArray[np.float32]
    rows: NDArray[np.int64]  # of the pool, at most 1,000 and chosen blindly


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A test's answer."""

    p: float  # the share of relabelled pools that differ as much, (1 + #) / (1 + B)
    effect: float  # how large the difference is, whatever the number of rows


def relabel(first: int, second: int, permutations: int, seed: Sequence[int]) -> Labels:
    """Draw the relabellings of two samples.

    Args:
        first: m, at least 2.
        second: n, likewise.
        permutations: B, at least 1; no p is below 1/(1 + B).
        seed: equal seeds give equal draws.
    """
    assert min(first, second) >= 2
    assert permutations >= 1
    generator = np.random.default_rng(seed)
    truth = np.zeros(first + second, dtype=np.float32)
    truth[:first] = 1.0
    drawn = generator.permuted(np.tile(truth, (permutations, 1)), axis=1)
    marks = np.ascontiguousarray(np.vstack([truth[None], drawn]).T)
    rows = generator.permutation(first + second)[:_MEDIAN_ROWS]
    return Labels(first=first, second=second, marks=marks, rows=np.sort(rows))


def principal(pooled: Floats, dimensions: int) -> Floats:
    """Project pooled rows (n, D) on their own leading directions.

    Directions of one of the samples would fit its noise, in which the other one then scatters
    less: two samples of one kind would differ.

    Returns:
        (n, min(dimensions, n - 1, D)).
    """
    centred = pooled - pooled.mean(axis=0)
    _, turn = np.linalg.eigh(centred.T @ centred)
    kept = min(dimensions, len(pooled) - 1, pooled.shape[1])
    projected: Floats = centred @ turn[:, ::-1][:, :kept]
    return projected


def kernel_test(pooled: Floats, labels: Labels) -> Difference:
    """Maximum mean discrepancy (Gretton et al. 2012, eq. 3: unbiased), Gaussian kernel.

    k(x, y) = exp(-|x - y|² / w), where w is four times the median over both samples: the usual
    heuristic takes one or two, but features that change mostly
    shift, which a wide kernel sees better. Measured in ``benchmarks/drift.py``.

    Args:
        pooled: (m + n, d), the first sample first.
        labels: of the pool.

    Returns:
        p, and the distance of the two means among the kernel's features, in units of the scatter
        of one sample there: sqrt(MMD² / (1 - E k(x, x'))), Cohen's d of the embedding; 0 where
        MMD² is not positive.
    """
    some = pooled[labels.rows]
    width = _WIDTH * float(np.median(_squared(some)[np.triu_indices(len(some), 1)]))
    if width <= 0:  # more than half of all rows are the same
        width = max(float(_squared(some).max()), np.finfo(np.float64).tiny)
    kernel = np.exp(_squared(pooled) / -width).astype(np.float32)
    np.fill_diagonal(kernel, 0.0)
    total = len(kernel)
    offset = float(kernel.sum(dtype=np.float64)) / (total * (total - 1))
    # Taken from all pairs, it changes no MMD², and leaves small numbers to be added.
    kernel -= np.float32(offset)
    np.fill_diagonal(kernel, 0.0)
    marks, m, n = labels.marks, labels.first, labels.second
    own = np.einsum("nb,nb->b", kernel @ marks, marks, dtype=np.float64)
    sums = kernel.sum(axis=1, dtype=np.float64)
    touching = sums @ marks.astype(np.float64)
    within, other = own / (m * (m - 1)), (sums.sum() - 2 * touching + own) / (n * (n - 1))
    squared = within + other - 2 * (touching - own) / (m * n)
    scatter = 1.0 - offset - (within[0] + other[0]) / 2
    effect = float(np.sqrt(max(squared[0], 0.0) / scatter)) if scatter > 0 else 0.0
    return Difference(p=_p_value(squared), effect=effect)


def distribution_test(pooled: Floats, labels: Labels) -> Difference:
    """Kolmogorov-Smirnov, two-sided; ties cost it nothing but power.

    Args:
        pooled: (m + n,) numbers, the first sample first.
        labels: of the pool.

    Returns:
        p, and the largest distance between the two distribution functions, in [0, 1].
    """
    order = np.argsort(pooled, kind="stable")
    ranked = pooled[order]
    ends = np.append(ranked[1:] != ranked[:-1], True)  # of runs of equal numbers
    below = labels.marks[order].cumsum(axis=0, dtype=np.float64)[ends]
    upto = np.arange(1, len(pooled) + 1)[ends, None]
    gaps = np.abs(below / labels.first - (upto - below) / labels.second).max(axis=0)
    return Difference(p=_p_value(gaps), effect=float(gaps[0]))


def fall_test(pooled: Floats, labels: Labels) -> Difference:
    """Whether the second sample's mean is lower; one-sided.

    Args:
        pooled: (m + n,) numbers, the first sample first.
        labels: of the pool.

    Returns:
        p, and by how much it is lower; negative where it is higher.
    """
    first = pooled @ labels.marks.astype(np.float64)
    falls = first / labels.first - (pooled.sum() - first) / labels.second
    return Difference(p=_p_value(falls), effect=float(falls[0]))


def _p_value(statistics: Floats) -> float:
    """Of the first among all; the larger, the more unusual."""
    drawn, truth = statistics[1:], statistics[0]
    slack = _SLACK * float(np.abs(statistics).max())
    return (1 + int((drawn >= truth - slack).sum())) / (1 + len(drawn))


def _squared(rows: Floats) -> Floats:
    """(n, n) squared distances."""
    lengths = (rows**2).sum(axis=1)
    distances: Floats = np.maximum(lengths[:, None] + lengths - 2 * rows @ rows.T, 0.0)
    return distances
