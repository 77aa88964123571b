"""Two versions on the same images: is the newcomer worse, and how sure is that.

Scores on one test set are paired: most images are easy or hard for both, and only those that one
gets right and the other does not say anything. So the difference is tested on these alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from adapterbank.errors import InputError
from adapterbank.records import Score

_BINS = 15


@dataclass(frozen=True, kw_only=True)
class Paired:
    """What a challenger changes against a champion, in images."""

    total: int
    gained: int  # right now, wrong before
    lost: int  # wrong now, right before
    challenger: Score
    champion: Score

    @property
    def difference(self) -> float:
        """Accuracy of the challenger less the champion's."""
        return (self.gained - self.lost) / self.total

    @property
    def p_worse(self) -> float:
        """Exact one-sided McNemar test (McNemar 1947; binomial, no normal approximation).

        The probability of losing this many of the images on which the two differ, or more, if
        each were as likely to be gained: small where the challenger really is worse.
        """
        if not self.gained + self.lost:
            return 1.0
        return float(stats.binom.sf(self.lost - 1, self.gained + self.lost, 0.5))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the difference: Agresti & Min 2005, two pseudo-images added."""
        n = self.total + 2.0
        gained, lost = (self.gained + 0.5) / n, (self.lost + 0.5) / n
        spread = stats.norm.ppf(0.5 + level / 2.0) * np.sqrt(
            max(gained + lost - (gained - lost) ** 2, 0.0) / n
        )
        centre = gained - lost
        return max(-1.0, float(centre - spread)), min(1.0, float(centre + spread))


def compare(challenger: NDArray[np.bool_], champion: NDArray[np.bool_]) -> Paired:
    """Compare two versions image by image.

    Args:
        challenger: (n,) whether it answered each image right.
        champion: (n,) the same, in the same order.

    Raises:
        InputError: the two are not of the same images, or there are none.
    """
    if challenger.shape != champion.shape or challenger.ndim != 1 or not len(challenger):
        raise InputError(
            f"answers to {challenger.shape} and {champion.shape} images cannot be compared one by"
            " one"
        )
    return Paired(
        total=len(challenger),
        gained=int((challenger & ~champion).sum()),
        lost=int((~challenger & champion).sum()),
        challenger=Score(correct=int(challenger.sum()), total=len(challenger)),
        champion=Score(correct=int(champion.sum()), total=len(champion)),
    )


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Expected calibration error (Naeini et al. 2015), 15 bins of equally many images.

    Args:
        confidence: (n,) probability of the label that was given.
        right: (n,) whether it is the true one.

    Returns:
        Mean over bins, by size, of |accuracy − confidence|; in [0, 1].

    Raises:
        InputError: the two differ in length, or are empty.
    """
    if confidence.shape != right.shape or not len(right):
        raise InputError(f"{len(confidence)} confidences of {len(right)} answers")
    order = np.argsort(confidence, kind="stable")
    error = 0.0
    for rows in np.array_split(order, min(_BINS, len(order))):
        gap = abs(float(right[rows].mean()) - float(confidence[rows].mean()))
        error += gap * len(rows) / len(order)
    return error


def pack_right(right: NDArray[np.bool_]) -> str:
    """Write which images were answered right as hexadecimal, one bit an image."""
    return np.packbits(right).tobytes().hex()


def unpack_right(packed: str, total: int) -> NDArray[np.bool_]:
    """Read what :func:`pack_right` wrote.

    Raises:
        InputError: it is not of ``total`` images.
    """
    try:
        content = np.frombuffer(bytes.fromhex(packed), dtype=np.uint8)
    except ValueError as error:
        raise InputError(f"not a list of answers: {error}") from error
    if len(content) != -(-total // 8):
        raise InputError(f"answers to {8 * len(content)} images, expected {total}")
    return np.unpackbits(content, count=total).astype(bool)
