"""Which of eight ways a pointed object points; what and where it is does not matter."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from adapterbank.data.tasks._draw import (
    CANVAS,
    POINTED,
    backdrop,
    builder,
    contrasting,
    stamp,
)

CLASSES = ("east", "northeast", "north", "northwest", "west", "southwest", "south", "southeast")
DESCRIPTION = "direction of one rendered pointed object, 8 compass points"
SIZES = {"train": 800, "val": 200, "test": 800}

_WOBBLE = math.radians(16)  # of the 22.5 degrees to the next class's edge


def _render(label: int, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw a pointed object of varied shape, size, place, colour and backdrop."""
    radius = random.uniform(14, 30)
    x, y = random.uniform(radius + 2, CANVAS - radius - 2, 2)
    angle = 2 * math.pi * label / len(CLASSES) + random.uniform(-_WOBBLE, _WOBBLE)
    canvas = backdrop(random)
    return stamp(
        canvas,
        POINTED[random.integers(len(POINTED))],
        contrasting(canvas, random),
        centre=(x, y),
        radius=radius,
        angle=angle,
    )


build = builder(len(CLASSES), _render)
