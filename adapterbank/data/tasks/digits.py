"""Handwritten digits 0 to 9: the scans that scikit-learn ships, written onto coloured paper."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

from adapterbank.data.splits import generator, partition
from adapterbank.data.tasks._draw import CANVAS, backdrop, balanced, contrasting

__all__ = ["CLASSES", "DESCRIPTION", "SIZES", "build"]

CLASSES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
DESCRIPTION = "handwritten digits (8x8 scans of scikit-learn) in coloured ink on coloured paper"
SIZES = {"train": 800, "val": 200, "test": 797}

_INK = 16  # the scans' darkest value


def build(
    split: str, count: int, random: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Write ``count`` scans of one split at varied places, sizes and slants.

    The 1,797 scans are divided once and for all, whatever the seed, so no scan serves two splits.

    Args:
        split: ``train``, ``val`` or ``test``.
        count: at most ``SIZES[split]``.
        random: chooses scans and their looks.

    Returns:
        (count, CANVAS, CANVAS, 3) uint8 images and (count,) int64 labels.
    """
    scans, digits = load_digits(return_X_y=True)
    sizes = tuple(SIZES.values())
    rows = dict(zip(SIZES, partition(digits, sizes, generator(0, "digits")), strict=True))[split]
    chosen = _first_of_each(digits[rows], balanced(count, len(CLASSES), random), random)
    labels = digits[rows][chosen].astype(np.int64)
    images = np.stack([_write(scans[row].reshape(8, 8), random) for row in rows[chosen]])
    return images, labels
