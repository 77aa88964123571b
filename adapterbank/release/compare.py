"""Two versions on the same images: is the newcomer worse, and how sure is that.

Most images are easy or hard for both; only those that one gets right and the other does not say
anything.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from adapterbank.registry.verdicts import Comparison

_LEVEL = 0.95
_DIGITS = 6


def compare_answers(challenger: NDArray[np.bool_], champion: NDArray[np.bool_]) -> Comparison:
    """Compare two versions image by image.

    Args:
        challenger: (n,) whether it answered each image right, n at least 1.
        champion: (n,) the same, in the same order.
    """
    assert challenger.shape == champion.shape == (len(champion),)
    gained, lost = int((challenger & ~champion).sum()), int((~challenger & champion).sum())
    return compare_pairs(len(champion), gained, lost)


def compare_pairs(total: int, gained: int, lost: int, *, level: float = _LEVEL) -> Comparison:
    """Compare two versions by the images that only one of them got right.

    The test is McNemar's (1947), exact and one-sided: how likely so many of the images on which
    the two differ are lost, if each were as likely to be gained. The interval is that of Agresti
    and Min (2005), who add two pseudo-images.

    Args:
        total: images that both answered, at least 1.
        gained: images that only the challenger got right.
        lost: images that only the champion got right.
        level: of the interval.
    """
    from scipy.stats import binomtest  # noqa: PLC0415  # half a second that only releases need

    assert total >= max(1, gained + lost)
    differing = gained + lost
    p = float(binomtest(lost, differing, alternative="greater").pvalue) if differing else 1.0
    up, down = (gained + 0.5) / (total + 2), (lost + 0.5) / (total + 2)
    variance = max(up + down - (up - down) ** 2, 0.0) / (total + 2)
    return Comparison(
        test="mcnemar",
        p=_rounded(p),
        difference=(gained - lost) / total,
        interval=_interval(up - down, variance, level),
        gained=gained,
        lost=lost,
        total=total,
    )


def _interval(centre: float, variance: float, level: float) -> tuple[float, float]:
    spread = NormalDist().inv_cdf(0.5 + level / 2) * math.sqrt(variance)
    bounds = max(-1.0, centre - spread), min(1.0, centre + spread)
    return round(bounds[0], _DIGITS), round(bounds[1], _DIGITS)


def _rounded(p: float) -> float:
    """Keep so many significant digits, so that history reads the same wherever it was written."""
    return float(f"{p:.{_DIGITS}g}")
