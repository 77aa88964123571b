"""A task's stored routing record, read back and checked: all that a router knows of the task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from adapterbank.errors import IntegrityError

__all__ = ["Floats", "TaskStatistics", "read_statistics", "triangle", "unpack"]

Floats: TypeAlias = NDArray[np.float64]

_SLACK = 1e-6  # a mean of unit vectors is no longer than one, but for rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskStatistics:
    """Class statistics of L2-normalised frozen features.

    Args:
        counts: (C,) training images of each class.
        means: (C, D) class means.
        scatter: (D·(D+1)/2,) upper triangle by rows of the within-class scatter.
        calibration: (K, D) held-out features, of length one.
    """

    counts: NDArray[np.int64]
    means: Floats
    scatter: Floats
    calibration: Floats

    @property
    def width(self) -> int:
        """D."""
        return int(self.means.shape[1])

    @property
    def classes(self) -> int:
        """C."""
        return len(self.counts)

    @property
    def images(self) -> int:
        """Training images of all classes."""
        return int(self.counts.sum())

    @property
    def mean(self) -> Floats:
        """(D,) mean of all training images."""
        total: Floats = self.counts @ self.means / self.images
        return total


def read_statistics(data: bytes, *, where: str) -> TaskStatistics:
    """Read the bytes of a ``routing.safetensors``.

    Raises:
        IntegrityError: it is no routing record; names what is wrong.
    """
    try:
        arrays = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise IntegrityError(f"{where} is not a usable safetensors file: {error}") from error
    return as_statistics(arrays, where=where)


def as_statistics(arrays: Mapping[str, NDArray[np.generic]], *, where: str) -> TaskStatistics:
    """Check the arrays of a routing record.

    Args:
        arrays: as :func:`adapterbank.routing.record.task_record` gives them.
        where: what errors call them.

    Raises:
        IntegrityError: one is missing, has another shape, or holds what no features give.
    """
    missing = sorted({"counts", "means", "scatter", "calibration"} - arrays.keys())
    if missing:
        raise IntegrityError(f"{where} is no routing record: it lacks {', '.join(missing)}")
    counts, means = arrays["counts"].astype(np.int64), arrays["means"].astype(np.float64)
    scatter = arrays["scatter"].astype(np.float64)
    held = arrays["calibration"].astype(np.float64)
    classes = len(counts) if counts.ndim == 1 else 0
    width = means.shape[1] if means.ndim == 2 else 0
    expected = {"means": (classes, width), "scatter": (width * (width + 1) // 2,)}
    got = {"means": means.shape, "scatter": scatter.shape}
    wrong = next((name for name in expected if got[name] != expected[name]), None)
    if wrong or not classes or not width or held.ndim != 2 or held.shape[1] != width:
        raise IntegrityError(
            f"{where} is no routing record: shapes {counts.shape}, {means.shape},"
            f" {scatter.shape} and {held.shape} do not belong together"
        )
    if not all(np.isfinite(part).all() for part in (means, scatter, held)):
        raise IntegrityError(f"{where} holds NaN or infinite values")
    lengths = np.linalg.norm(held, axis=1, keepdims=True)
    if (counts < 1).any() or (np.linalg.norm(means, axis=1) > 1 + _SLACK).any():
        raise IntegrityError(f"{where}: a class has no image, or a mean longer than its features")
    if (lengths == 0).any():
        raise IntegrityError(f"{where}: a calibration feature has length zero")
    return TaskStatistics(counts=counts, means=means, scatter=scatter, calibration=held / lengths)


def triangle(matrix: Floats) -> Floats:
    """Pack the upper triangle of a (D, D) matrix by rows, as records store scatter."""
    packed: Floats = matrix[np.triu_indices(len(matrix))]
    return packed


def unpack(packed: Floats, width: int) -> Floats:
    """Rebuild a symmetric (D, D) matrix from its upper triangle by rows."""
    matrix = np.zeros((width, width))
    matrix[np.triu_indices(width)] = packed
    return matrix + np.triu(matrix, 1).T
