"""Two versions of which only counts are known: is the newcomer worse, and how sure is that.

Where one of the two has seen the validation images, its answers to them say nothing, and what is
left are the counts of the trial that chose it. Counts are compared as if they came from different
images, which needs more of them for the same certainty than a paired test does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from adapterbank.errors import InputError
from adapterbank.records import Score


@dataclass(frozen=True, kw_only=True)
class Unpaired:
    """Counts of a challenger and of a champion."""

    challenger: Score
    champion: Score

    @property
    def difference(self) -> float:
        """Accuracy of the challenger less the champion's."""
        return self.challenger.accuracy - self.champion.accuracy

    @property
    def p_worse(self) -> float:
        """One-sided exact test of Fisher (1935): as few right answers or fewer, if none differed.

        Both margins are held fixed, so that the challenger's right answers are hypergeometric.
        """
        right = self.challenger.correct + self.champion.correct
        images = self.challenger.total + self.champion.total
        return float(
            stats.hypergeom.cdf(self.challenger.correct, images, right, self.challenger.total)
        )

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the difference: Agresti & Caffo 2000, one added to each count."""
        shares, variance = [], 0.0
        for score in (self.challenger, self.champion):
            share = (score.correct + 1) / (score.total + 2)
            shares.append(share)
            variance += share * (1 - share) / (score.total + 2)
        centre = shares[0] - shares[1]
        spread = float(stats.norm.ppf(0.5 + level / 2.0) * np.sqrt(variance))
        return max(-1.0, centre - spread), min(1.0, centre + spread)


def compare_counts(challenger: Score, champion: Score) -> Unpaired:
    """Compare two versions by their counts.

    Raises:
        InputError: one of them was scored on nothing.
    """
    if not challenger.total or not champion.total:
        raise InputError(
            f"scores on {challenger.total} and {champion.total} images cannot be compared"
        )
    return Unpaired(challenger=challenger, champion=champion)
