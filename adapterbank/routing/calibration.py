"""From scores to promises: p-values that hold for exchangeable images, and honest probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from adapterbank.routing.statistics import Floats

# Squared distances count every dimension as if it were independent, so that the raw scores are
# surer than they should be: by up to the number of dimensions.
TEMPERATURES: tuple[float, ...] = tuple(2.0 ** (power / 2) for power in range(21))
"""What :func:`fit_temperature` tries: 1 to 1,024, half an octave apart."""


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
    found = np.ones(len(scores))
    for task in np.unique(chosen):
        rows, held = chosen == task, calibration[task]
        found[rows] = (1 + np.searchsorted(held, scores[rows], side="right")) / (len(held) + 1)
    return found


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
