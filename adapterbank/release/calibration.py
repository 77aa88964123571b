"""How far the probabilities of a version are from how often it is right.

Binned estimates are far from 0 for a version without any error (0.09 to 0.14 with 15 bins and 80
to 200 images), for every bin has its own scatter, and depend on where bins end. Here pairs of
*different* images are compared instead: the scatter of one image is not that of another, so that
it cancels (the unbiased estimate of Widmann, Lindsten & Zachariah 2019, arXiv:1910.11385, for the
top label, scaled to be an error of probability).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_WIDTH = 0.2  # of probability: gaps of images farther apart hardly count together
_MOST = 5000  # images; the time grows with their square
_ROWS = 500  # of pairs at once
_QUANTILE = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """An error in [0, 1], and the interval that has the true one in 95 of 100 cases."""

    error: float
    interval: tuple[float, float]


def calibration_error(
    confidence: NDArray[np.floating], right: NDArray[np.bool_]
) -> Calibration | None:
    """Estimate the root of the mean product of the gaps of two images.

    A gap is 1 or 0, as an answer is right or not, less its probability; a pair counts by
    exp(-|difference of its probabilities| / 0.2). A version whose answers are all d too sure has
    the error d, one that is right as often as it says has 0. The interval holds every error d that
    the estimate is no surprise for (as Wilson's of a share), with the variance of a gap halfway
    between what was seen and what the probabilities say.

    Args:
        confidence: (n,) probability of the label that was given.
        right: (n,) whether it is the true one.

    Returns:
        The same whatever the order of the images; None of fewer than two.
    """
    assert confidence.shape == right.shape == (len(right),)
    if len(right) < 2:
        return None
    order = np.lexsort((right, confidence))
    if len(order) > _MOST:
        order = order[np.linspace(0, len(order) - 1, _MOST).round().astype(np.int64)]
    said = confidence[order].astype(np.float64)
    gaps = right[order] - said
    variances = (gaps**2 + said * (1 - said)) / 2
    products = weight = pairs = singles = 0.0
    for start in range(0, len(said), _ROWS):
        rows = slice(start, start + _ROWS)
        near = np.exp(-np.abs(said[rows, None] - said) / _WIDTH)
        near[np.arange(len(near)), np.arange(start, start + len(near))] = 0.0  # with itself
        own = near.sum(axis=1)
        products += float(gaps[rows] @ near @ gaps)
        weight += float(own.sum())
        pairs += float(variances[rows] @ near**2 @ variances)
        singles += float(own**2 @ variances[rows])
    squared = products / weight
    # If the error is d the estimate has the variance (2 pairs + 4 d² singles) / weight².
    half = 2 * singles * (_QUANTILE / weight) ** 2
    spread = math.sqrt(max(half**2 + 2 * half * squared + 2 * pairs * (_QUANTILE / weight) ** 2, 0))
    bounds = (squared + half - spread, squared + half + spread)
    return Calibration(error=_root(squared), interval=(_root(bounds[0]), _root(bounds[1])))


def _root(squared: float) -> float:
    """Of an estimate that may be below 0 where there is no error."""
    return round(math.sqrt(min(max(squared, 0.0), 1.0)), 6)
