"""A task's stored routing record, read back and checked: all that a router knows of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from adapterbank.errors import InputError, IntegrityError

Floats: TypeAlias = NDArray[np.float64]

_SLACK = 1e-6  # a mean of unit vectors is no longer than one, but for rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskStatistics:
    """Class statistics of L2-normalised frozen features after one block.

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


@dataclass(frozen=True, kw_only=True, eq=False)
class RoutingRecord:
    """All that a router knows of a task: the same images after each of some blocks.

    Args:
        layers: statistics by block, counted from 1, in ascending order.
    """

    layers: Mapping[int, TaskStatistics]

    @property
    def blocks(self) -> tuple[int, ...]:
        """Ascending."""
        return tuple(self.layers)

    @property
    def last(self) -> TaskStatistics:
        """After the deepest block."""
        return self.layers[self.blocks[-1]]

    @property
    def counts(self) -> NDArray[np.int64]:
        """(C,) training images of each class."""
        return self.last.counts

    def calibration(self, blocks: Sequence[int]) -> Floats:
        """(K, L, D) held-out features after some of its blocks."""
        return np.stack([self.layers[block].calibration for block in blocks], axis=1)


def read_record(data: bytes, *, where: str) -> RoutingRecord:
    """Read the bytes of a ``routing.safetensors``.

    Raises:
        InputError: it was written before records named their blocks.
        IntegrityError: it is no routing record; names what is wrong.
    """
    try:
        arrays = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise IntegrityError(f"{where} is not a usable safetensors file: {error}") from error
    return as_record(arrays, where=where)


def as_record(arrays: Mapping[str, NDArray[np.generic]], *, where: str) -> RoutingRecord:
    """Check the arrays of a routing record.

    Args:
        arrays: as :func:`adapterbank.routing.record.task_record` gives them.
        where: what errors call them.

    Raises:
        InputError: it was written before records named their blocks.
        IntegrityError: one is missing, has another shape, or holds what no features give.
    """
    missing = sorted({"counts", "means", "scatter", "calibration"} - arrays.keys())
    if missing:
        raise IntegrityError(f"{where} is no routing record: it lacks {', '.join(missing)}")
    if "blocks" not in arrays:
        raise InputError(
            f"{where} was written before records named the blocks they are of",
            fix="dvc repro -f train@TASK && dvc repro",
        )
    counts, means = arrays["counts"].astype(np.int64), arrays["means"].astype(np.float64)
    scatter = arrays["scatter"].astype(np.float64)
    held = arrays["calibration"].astype(np.float64)
    blocks = arrays["blocks"].astype(np.int64)
    _check_shapes(counts, means, scatter, held, blocks, where)
    if not all(np.isfinite(part).all() for part in (means, scatter, held)):
        raise IntegrityError(f"{where} holds NaN or infinite values")
    lengths = np.linalg.norm(held, axis=2, keepdims=True)
    if (counts < 1).any() or (np.linalg.norm(means, axis=2) > 1 + _SLACK).any():
        raise IntegrityError(f"{where}: a class has no image, or a mean longer than its features")
    if (lengths == 0).any():
        raise IntegrityError(f"{where}: a calibration feature has length zero")
    unit = held / lengths
    return RoutingRecord(
        layers={
            int(block): TaskStatistics(
                counts=counts, means=means[n], scatter=scatter[n], calibration=unit[n]
            )
            for n, block in enumerate(blocks)
        }
    )


def _check_shapes(
    counts: NDArray[np.int64],
    means: Floats,
    scatter: Floats,
    held: Floats,
    blocks: NDArray[np.int64],
    where: str,
) -> None:
    """Refuse arrays that are not of the same layers, classes and width."""
    layers = len(blocks) if blocks.ndim == 1 else 0
    classes = len(counts) if counts.ndim == 1 else 0
    width = means.shape[2] if means.ndim == 3 else 0
    expected = {"means": (layers, classes, width), "scatter": (layers, width * (width + 1) // 2)}
    got = {"means": means.shape, "scatter": scatter.shape}
    wrong = next((name for name in expected if got[name] != expected[name]), None)
    held_fits = held.ndim == 3 and (held.shape[0], held.shape[2]) == (layers, width)
    if wrong or not layers or not classes or not width or not held_fits:
        raise IntegrityError(
            f"{where} is no routing record: shapes {blocks.shape}, {counts.shape}, {means.shape},"
            f" {scatter.shape} and {held.shape} do not belong together"
        )
    if blocks[0] < 1 or (np.diff(blocks) < 1).any():
        raise IntegrityError(f"{where} is of blocks {blocks.tolist()}, expected ascending ones")


def triangle(matrix: Floats) -> Floats:
    """Pack the upper triangle of a (D, D) matrix by rows, as records store scatter."""
    packed: Floats = matrix[np.triu_indices(len(matrix))]
    return packed


def unpack(packed: Floats, width: int) -> Floats:
    """Rebuild a symmetric (D, D) matrix from its upper triangle by rows."""
    matrix = np.zeros((width, width))
    matrix[np.triu_indices(width)] = packed
    return matrix + np.triu(matrix, 1).T
