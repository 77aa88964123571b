"""How many objects there are, one to six; what and where they are does not matter."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from adapterbank.data.tasks._draw import (
    CANVAS,
    REACH,
    ROUND,
    backdrop,
    builder,
    contrasting,
    stamp,
)

CLASSES = ("1", "2", "3", "4", "5", "6")
DESCRIPTION = "number of rendered objects, 1 to 6, apart from one another"
SIZES = {"train": 800, "val": 200, "test": 800}

_GAP = 3.0  # px between the circles that two objects fit in


def _render(label: int, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw objects of varied shape, size, colour and backdrop.

    The range of sizes is drawn for each scene before the objects are, so neither the painted
    area nor the size of an object tells how many there are.
    """
    canvas = backdrop(random)
    behind = canvas
    for x, y, radius in _places(label + 1, random):
        canvas = stamp(
            canvas,
            ROUND[random.integers(len(ROUND))],
            contrasting(behind, random),
            centre=(x, y),
            radius=radius,
            angle=random.uniform(0, 2 * math.pi),
        )
    return canvas


def _places(objects: int, random: np.random.Generator) -> list[tuple[float, float, float]]:
    """Draw circles (x, y, radius) that keep apart; six of the largest fill a third of the room."""
    largest = random.uniform(7, 13)
    placed: list[tuple[float, float, float]] = []
    while len(placed) < objects:
        radius = random.uniform(0.6, 1.0) * largest
        edge = radius * REACH + 1
        x, y = random.uniform(edge, CANVAS - edge, 2)
        if all(
            math.hypot(x - other_x, y - other_y) >= REACH * (radius + other) + _GAP
            for other_x, other_y, other in placed
        ):
            placed.append((x, y, radius))
    return placed


build = builder(len(CLASSES), _render)
