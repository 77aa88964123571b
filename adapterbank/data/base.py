"""A task's data in memory: three splits of uint8 pixels, and the checks that keep them honest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from adapterbank.errors import InputError

_LISTED = 10  # names in one message; the rest is counted

SPLITS = ("train", "val", "test")
"""The splits of every task, in the order in which they are hashed and written."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images and labels of one split."""

    # (B, 3, H, W) uint8; normalised only when a batch is used, a quarter of the memory.
    images: torch.Tensor
    labels: torch.Tensor  # (B,) int64, indices into the task's classes

    def __post_init__(self) -> None:
        """Refuse other dtypes and shapes.

        Raises:
            InputError: dtype or shape is not as documented.
        """
        for name, tensor, dtype, dims in (
            ("images", self.images, torch.uint8, 4),
            ("labels", self.labels, torch.int64, 1),
        ):
            if tensor.dtype != dtype or tensor.ndim != dims:
                raise InputError(
                    f"{name}: got {tensor.dtype} with {tensor.ndim} dimensions,"
                    f" expected {dtype} with {dims}"
                )
        if len(self.images) != len(self.labels):
            raise InputError(f"{len(self.images)} images but {len(self.labels)} labels")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """Of the pixels of each image, see :func:`pixel_digest`; hashed once."""
        return image_digests(self.images)


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskData:
    """Everything a task is trained and judged on."""

    classes: tuple[str, ...]  # names; a label is an index into them
    train: Split  # what adapters are fitted to
    val: Split  # what choices are made on
    test: Split  # what is reported, read once
    source: str  # the URI it was built from
    notes: str = ""  # one line on what was left out or done on the way

    def split(self, name: str) -> Split:
        """Return one split by its name in :data:`SPLITS`."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


class TrainingData(Protocol):
    """What a training reads of a task: no test images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""

    @property
    def train(self) -> Split:
        """What the adapter is fitted to."""

    @property
    def val(self) -> Split:
        """What the adapter is judged on after each epoch."""


def label_problems(classes: Sequence[str], labels: Mapping[str, Sequence[int]]) -> list[str]:
    """Find what is wrong with a task's classes and splits before any image is decoded.

    Args:
        classes: class names.
        labels: of the images of each split, indices into the classes.

    Returns:
        Fewer than two classes, repeated names, classes without a training image, empty splits and
        labels out of range, a line each.
    """
    problems = []
    if len(classes) < 2:
        problems.append(f"classes: got {len(classes)}, expected at least 2")
    repeated = sorted(name for name, count in Counter(classes).items() if count > 1)
    if repeated:
        problems.append(f"classes: named more than once: {_listed(repeated)}")
    trained = set(labels["train"])
    missing = [name for label, name in enumerate(classes) if label not in trained]
    if missing:
        problems.append(f"train: no image of {_listed(missing)}")
    for name in SPLITS:
        if not labels[name]:
            problems.append(f"{name}: no images")
            continue
        low, high = min(labels[name]), max(labels[name])
        if low < 0 or high >= len(classes):
            problems.append(
                f"{name}: labels from {low} to {high}, expected 0 to {len(classes) - 1}"
            )
    return problems


def _listed(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def pixel_digest(pixels: torch.Tensor) -> bytes:
    """Hash the pixels (3, H, W) uint8 of an image: equal for copies at the input's size."""
    return hashlib.blake2b(bytes_of(pixels), digest_size=16).digest()


def image_digests(images: torch.Tensor) -> tuple[bytes, ...]:
    """Hash the pixels of each image (B, 3, H, W) uint8."""
    return tuple(pixel_digest(image) for image in images)


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """View a tensor's bytes without copying it where it is contiguous already."""
    array: npt.NDArray[np.generic] = tensor.contiguous().numpy()
    return array.reshape(-1).view(np.uint8).data
