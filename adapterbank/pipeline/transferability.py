"""How much one task may help another, told from features: two scores, plain numpy.

The Gaussian distance needs nothing but what versions store; the H-score needs the target's images
under the adapter in question. Both shrink covariances, since a task has few images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapterbank.errors import InputError
from adapterbank.routing.metric import factorise, shrink
from adapterbank.routing.record import Floats, TaskStatistics, unpack


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskGaussian:
    """All of a task's frozen features as one Gaussian.

    Args:
        mean: (D,).
        covariance: (D, D), of the features around ``mean``, shrunk by OAS.
        log_determinant: of the covariance.
    """

    mean: Floats
    covariance: Floats
    log_determinant: float

    @classmethod
    def of(cls, record: TaskStatistics) -> TaskGaussian:
        """Take a task's Gaussian from its record: scatter within its classes and between them.

        Raises:
            InputError: all features are the same.
        """
        mean = record.mean
        apart = record.means - mean
        total = unpack(record.scatter, record.width) + (apart.T * record.counts) @ apart
        covariance, _ = shrink(total / record.images, record.images - 1)
        return cls(mean=mean, covariance=covariance, log_determinant=_log_determinant(covariance))


def bhattacharyya(one: TaskGaussian, other: TaskGaussian) -> float:
    """Bhattacharyya distance of two Gaussians (Bhattacharyya 1943); Kailath 1967, eq. 45.

    Symmetric, zero for equal ones, and the same in any turned or stretched coordinates.

    Returns:
        Nats, 0 or more.
    """
    middle = (one.covariance + other.covariance) / 2
    apart = one.mean - other.mean
    shift = float(apart @ np.linalg.solve(middle, apart)) / 8
    shape = _log_determinant(middle) - (one.log_determinant + other.log_determinant) / 2
    return max(0.0, shift + shape / 2)


def ledoit_wolf(centred: Floats) -> float:
    """Shrinkage of a covariance towards a multiple of the identity (Ledoit & Wolf 2004).

    Args:
        centred: (n, D) rows whose mean is zero.

    Returns:
        α in [0, 1]: the share of the identity.
    """
    count, width = centred.shape
    covariance = centred.T @ centred / count
    mean = float(np.trace(covariance)) / width
    square = float((covariance**2).sum())
    apart = square / width - mean**2
    fourth = float((centred**2).sum(axis=1) @ (centred**2).sum(axis=1))
    noise = (fourth / count - square) / (width * count)
    return min(1.0, max(0.0, noise / apart)) if apart > 0 else 0.0


def shrunk_h_score(features: Floats, labels: NDArray[np.int64]) -> float:
    """Shrunk H-score of features for labels (Ibrahim, Ponomareva & Mazumder 2021, eq. 6).

    tr(Σ_α⁻¹ (1−α) Σ_z) of arXiv 2110.06893: how far apart the class means lie (Σ_z), seen in how
    features scatter (Σ_α, shrunk by α towards a multiple of the identity). Differs: Σ_z weighs
    each class by its images, as a covariance of E[f|y] over the images does.

    Args:
        features: (n, D).
        labels: (n,) class indices.

    Returns:
        0 to C−1; larger is better. Comparable between features of the same images only.

    Raises:
        InputError: there is no image, or a feature is not finite.
    """
    if not len(features) or len(features) != len(labels) or not np.isfinite(features).all():
        raise InputError(f"{len(features)} features of {len(labels)} images give no H-score")
    z = features.astype(np.float64)
    z = z - z.mean(axis=0)
    alpha = ledoit_wolf(z)
    covariance = z.T @ z / len(z)
    scale = float(np.trace(covariance)) / len(covariance)
    values, turn = np.linalg.eigh(
        (1 - alpha) * covariance + alpha * scale * np.eye(len(covariance))
    )
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    score = 0.0
    for label in np.unique(labels):
        rows = z[labels == label]
        seen = turn[:, kept].T @ rows.mean(axis=0)
        score += len(rows) / len(z) * float((seen**2 / values[kept]).sum())
    return (1 - alpha) * score


def _log_determinant(covariance: Floats) -> float:
    factor, _ = factorise(covariance)
    return 2.0 * float(np.log(np.diag(factor)).sum())
