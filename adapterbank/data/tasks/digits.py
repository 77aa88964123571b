"""Handwritten digits 0 to 9: the scans that scikit-learn ships, written onto coloured paper."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

from adapterbank.data.splits import choose, generator, partition
from adapterbank.data.tasks._draw import CANVAS, backdrop, contrasting, paint

CLASSES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
DESCRIPTION = "handwritten digits (8x8 scans of scikit-learn) in coloured ink on coloured paper"
SIZES = {"train": 800, "val": 200, "test": 797}

_SCAN = 8  # side of a scan
_RIM = 2  # empty pixels put around a scan, so that ink at its edge fades out
_INK = 16  # a scan's darkest value


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
    parts = partition(digits, tuple(SIZES.values()), generator(0, "digits"))
    rows = dict(zip(SIZES, parts, strict=True))[split]
    chosen = random.permutation(rows[choose(digits[rows], count, random)])
    images = [_write(scans[row].reshape(_SCAN, _SCAN), random) for row in chosen]
    return np.stack(images), digits[chosen].astype(np.int64)


def _write(scan: npt.NDArray[np.float64], random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Map the canvas back onto the scan (scale, turn, slant, place), then ink it."""
    scale = _SCAN / random.uniform(0.45, 0.85) / CANVAS  # scan pixels per canvas pixel
    angle, slant = random.normal(0, math.radians(9)), random.normal(0, 0.12)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    across = (cos + slant * sin, -sin + slant * cos)
    down = (sin, cos)
    x, y = CANVAS / 2 + random.uniform(-12, 12, 2)
    ink = Image.fromarray(np.rint(np.pad(scan, _RIM) * (255 / _INK)).astype(np.uint8))
    middle = _SCAN / 2 + _RIM
    mask = ink.transform(
        (CANVAS, CANVAS),
        Image.Transform.AFFINE,
        (
            *(*across, middle - across[0] * x - across[1] * y),
            *(*down, middle - down[0] * x - down[1] * y),
        ),
        Image.Resampling.BICUBIC,
    )
    paper = backdrop(random)
    return paint(paper, mask, contrasting(paper, random))
