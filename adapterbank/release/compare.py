"""Two versions on the same images: is the newcomer worse, and how sure is that.

Where both answered each image the counts are paired: most images are easy or hard for both, and
only those that one gets right and the other does not say anything. Where one of the two has seen
the images, only the counts of the trial that chose it are left; they are compared as if they came
from different images, which needs more of them for the same certainty.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from adapterbank.records import Score
from adapterbank.registry.verdicts import Comparison

_BINS = 15
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
    )


def compare_counts(challenger: Score, champion: Score) -> Comparison:
    """Compare two versions by their counts.

    The test is Fisher's (1935), one-sided: as few right answers or fewer, if the two did not
    differ. The interval is that of Agresti and Caffo (2000), who add one to each count.

    Args:
        challenger: of at least one image.
        champion: likewise.
    """
    from scipy.stats import fisher_exact  # noqa: PLC0415  # as above

    scores = (challenger, champion)
    assert all(score.total for score in scores)
    table = [[score.correct, score.total - score.correct] for score in scores]
    mine, theirs = ((score.correct + 1) / (score.total + 2) for score in scores)
    variance = sum(
        share * (1 - share) / (score.total + 2)
        for share, score in zip((mine, theirs), scores, strict=True)
    )
    return Comparison(
        test="fisher",
        p=_rounded(float(fisher_exact(table, alternative="less").pvalue)),
        difference=challenger.accuracy - champion.accuracy,
        interval=_interval(mine - theirs, variance, _LEVEL),
    )


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Expected calibration error (Naeini et al. 2015), 15 bins of equally many images.

    Args:
        confidence: (n,) probability of the label that was given.
        right: (n,) whether it is the true one.

    Returns:
        Mean over bins, by size, of |accuracy − confidence|; in [0, 1].
    """
    assert confidence.shape == right.shape == (len(right),)
    order = np.argsort(confidence, kind="stable")
    bins = np.array_split(order, min(_BINS, len(order)))
    gaps = [abs(float(right[rows].mean()) - float(confidence[rows].mean())) for rows in bins]
    return sum(gap * len(rows) for gap, rows in zip(gaps, bins, strict=True)) / len(order)


def _interval(centre: float, variance: float, level: float) -> tuple[float, float]:
    spread = NormalDist().inv_cdf(0.5 + level / 2) * math.sqrt(variance)
    bounds = max(-1.0, centre - spread), min(1.0, centre + spread)
    return round(bounds[0], _DIGITS), round(bounds[1], _DIGITS)


def _rounded(p: float) -> float:
    """Keep so many significant digits, so that history reads the same wherever it was written."""
    return float(f"{p:.{_DIGITS}g}")
