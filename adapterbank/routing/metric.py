"""Distances that know how features scatter: a shrunk covariance as its Cholesky factor.

A covariance of fewer images than dimensions is singular, so it is shrunk towards a multiple of
the identity by as much as its own sums ask for (OAS: Chen, Wiesel, Eldar & Hero, "Shrinkage
algorithms for MMSE covariance estimation", 2010, eq. 23). Nothing is ever inverted: whitening is
one solve with a triangular matrix.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import solve_triangular

from adapterbank.errors import InputError
from adapterbank.routing.record import Floats, TaskStatistics, triangle, unpack

_JITTER = 1e-6  # of the mean variance; the first that is tried
_TRIES = 5  # ten times as much each time


@dataclass(frozen=True, kw_only=True, eq=False)
class Metric:
    """A Gaussian's centre and shape."""

    mean: Floats  # (D,) centre
    factor: Floats  # (D, D) lower triangular L with L·Lᵀ the covariance
    turn: Floats | None = None  # (D, D) orthogonal; whitened rows are turned by it
    shrinkage: float  # ρ of OAS, 0 where the images decided everything, 1 where nothing
    jitter: float  # what was added to the diagonal, in units of the mean variance

    def whiten(self, rows: Floats) -> Floats:
        """Map (n, D) rows to L⁻¹(row − mean), in which the Gaussian is a standard one."""
        centred = np.ascontiguousarray((rows - self.mean).T)
        solved: Floats = solve_triangular(self.factor, centred, lower=True, check_finite=False).T
        return solved if self.turn is None else solved @ self.turn


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How features scatter: within their classes, and all of them around their mean.

    Args:
        within: centred at the origin, turned so that ``between`` is diagonal.
        background: of all features.
        between: (D,) variance of class means within a task, in the directions of ``within`` and
            in units of the variance within classes; what few images a class explain is taken off.
    """

    within: Metric
    background: Metric
    between: Floats


def shrink(covariance: Floats, freedom: float) -> tuple[Floats, float]:
    """Shrink a (D, D) covariance by OAS.

    Args:
        covariance: of ``freedom`` degrees of freedom.
        freedom: images, less the means that were taken from them.

    Returns:
        (1−ρ)·S + ρ·(tr S / D)·I, and ρ.
    """
    width = len(covariance)
    trace, square = float(np.trace(covariance)), float((covariance**2).sum())
    above = (1 - 2 / width) * square + trace**2
    below = (freedom + 1 - 2 / width) * (square - trace**2 / width)
    rho = 1.0 if below <= 0 else min(1.0, above / below)
    shrunk = (1 - rho) * covariance
    shrunk[np.diag_indices(width)] += rho * trace / width
    return shrunk, rho


def factorise(covariance: Floats) -> tuple[Floats, float]:
    """Take the Cholesky factor of a covariance, with as little jitter as it needs.

    Returns:
        L lower triangular, and the jitter in units of the mean variance.

    Raises:
        InputError: nothing scatters at all, or the matrix is not a covariance.
    """
    scale = float(np.trace(covariance)) / len(covariance)
    if not np.isfinite(scale) or scale <= 0:
        raise InputError(
            "the features of all classes do not scatter: a router needs classes of at least two"
            " different images",
            fix="train a task with more images of each class",
        )
    for step in range(_TRIES):
        jitter = _JITTER * 10.0**step
        lifted = covariance.copy()
        lifted[np.diag_indices(len(lifted))] += jitter * scale
        try:
            factor = np.linalg.cholesky(lifted).astype(np.float64)
        except np.linalg.LinAlgError:
            continue
        return factor, jitter
    raise InputError(f"the covariance of the features is not positive, even with {jitter:g} added")


def measure_spread(records: Iterable[TaskStatistics], cap: float) -> Spread:
    """Pool the scatter of tasks, in the order they come.

    Args:
        records: of at least one task; sorted by whoever wants equal bits.
        cap: images a task counts for at most, so that a large one does not decide alone.

    Returns:
        The metric within classes, centred at the origin, and the background's.

    Raises:
        InputError: nothing scatters.
    """
    tasks = tuple(records)
    width = tasks[0].width
    within, freedom = np.zeros(width * (width + 1) // 2), 0.0
    mean, images = np.zeros(width), 0.0
    for task in tasks:
        own = task.images - task.classes
        weight = min(1.0, cap / own) if own else 0.0  # classes of one image tell nothing of it
        within += weight * task.scatter
        freedom += weight * own
        share = min(1.0, cap / task.images)
        mean += share * task.images * task.mean
        images += share * task.images
    mean /= images
    total, between = np.zeros(width * (width + 1) // 2), np.zeros((width, width))
    for task in tasks:
        share = min(1.0, cap / task.images)
        offsets = task.means - mean
        total += share * task.scatter
        between += share * (offsets * task.counts[:, None]).T @ offsets
    turned, variances = _turn(_metric(within, freedom, np.zeros(width)), tasks)
    return Spread(
        within=turned,
        background=_metric(total + triangle(between), images - 1, mean),
        between=variances,
    )


def _turn(within: Metric, tasks: tuple[TaskStatistics, ...]) -> tuple[Metric, Floats]:
    """Find the directions in which classes of a task differ, and by how much."""
    scatter, freedom = np.zeros((len(within.mean), len(within.mean))), 0
    for task in tasks:
        white = within.whiten(task.means)
        offsets = white - white.mean(axis=0)
        # A mean of n images is off by 1/n in every direction.
        noise = (1 / task.counts).sum() * (1 - 1 / task.classes)
        scatter += offsets.T @ offsets
        scatter[np.diag_indices(len(scatter))] -= noise
        freedom += task.classes - 1
    if not freedom:
        return within, np.zeros(len(within.mean))
    variances, turn = np.linalg.eigh(scatter / freedom)
    return replace(within, turn=turn), np.maximum(variances, 0.0)


def _metric(scatter: Floats, freedom: float, mean: Floats) -> Metric:
    """Make a metric of a packed scatter."""
    if freedom <= 0:
        raise InputError(
            "every class of every task has one image: nothing says how features scatter",
            fix="train a task with more images of each class",
        )
    covariance, rho = shrink(unpack(scatter, len(mean)) / freedom, freedom)
    factor, jitter = factorise(covariance)
    return Metric(mean=mean, factor=factor, shrinkage=rho, jitter=jitter)
