"""Where an object stands from left to right, in six bins; what and how it is does not matter."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from adapterbank.data.tasks._draw import (
    CANVAS,
    ROUND,
    backdrop,
    builder,
    contrasting,
    stamp,
)

CLASSES = tuple(f"x{i}" for i in range(6))
DESCRIPTION = "horizontal position of one rendered object, 6 bins from left (x0) to right (x5)"
SIZES = {"train": 800, "val": 200, "test": 800}

_MARGIN = 10.0  # px that centres keep from the edge, which may cut a large object
_BIN_FILL = 0.8  # no object in the outer tenths of a bin, where the answer would be a coin toss


def _render(label: int, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw an object of varied shape, size, turn, colour, height and backdrop."""
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


build = builder(len(CLASSES), _render)
