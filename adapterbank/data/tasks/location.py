"""Where an object stands from left to right, in six bins; what and how it is does not matter."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from adapterbank.data.tasks._draw import (
    CANVAS,
    ROUND,
    backdrop,
    balanced,
    contrasting,
    stamp,
)

CLASSES = tuple(f"x{i}" for i in range(6))
DESCRIPTION = "horizontal position of one rendered object, 6 bins from left (x0) to right (x5)"
SIZES = {"train": 800, "val": 200, "test": 800}

_MARGIN = 10.0  # px that centres keep from the edge, which may cut a large object
_BIN_FILL = 0.8  # no object in the outer tenths of a bin, where the answer would be a coin toss


def build(
    split: str, count: int, random: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Render ``count`` objects of varied shape, size, turn, colour, height and backdrop.

    Args:
        split: ignored: rendered images never repeat, so any stream serves any split.
        count: how many.
        random: chooses everything.

    Returns:
        (count, CANVAS, CANVAS, 3) uint8 images and (count,) int64 labels.
    """
    del split
    labels = balanced(count, len(CLASSES), random)
    return np.stack([_render(label, random) for label in labels.tolist()]), labels


def _render(label: int, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    width = (CANVAS - 2 * _MARGIN) / len(CLASSES)
    x = _MARGIN + width * (label + 0.5 + _BIN_FILL * random.uniform(-0.5, 0.5))
    y = random.uniform(0.25, 0.75) * CANVAS
    canvas = backdrop(random)
    return stamp(
        canvas,
        ROUND[random.integers(len(ROUND))],
        contrasting(canvas, random),
        centre=(x, y),
        radius=random.uniform(10, 18),
        angle=random.uniform(0, 2 * math.pi),
    )
