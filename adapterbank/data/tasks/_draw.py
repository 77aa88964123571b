"""What the rendered tasks share: balanced labels, backdrops, colours and anti-aliased shapes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

CANVAS = 112
"""Side of every rendered image: 8 patches of 14 px, shrunk or grown to a registry's input size."""

REACH = 1.2
"""The farthest corner of any outline, in radii."""

_SUPERSAMPLE = 4
_LUMA = np.array([0.299, 0.587, 0.114])
_CONTRAST = 70.0  # least difference in brightness, of 255, between a figure and its backdrop

Outline = tuple[tuple[float, float], ...]
Pixels = npt.NDArray[np.uint8]


def _spokes(count: int, *radii: float) -> Outline:
    """Return ``count`` corners evenly around the origin, their distances cycling ``radii``."""
    return tuple(
        (
            radii[i % len(radii)] * math.cos(2 * math.pi * i / count),
            radii[i % len(radii)] * math.sin(2 * math.pi * i / count),
        )
        for i in range(count)
    )


ROUND: tuple[Outline, ...] = (
    _spokes(48, 1.0),  # disc
    _spokes(3, 1.15),
    _spokes(4, 1.1),
    _spokes(6, 1.05),
    _spokes(10, 1.2, 0.55),  # five-pointed star
    _spokes(8, 1.2, 0.5),  # four-pointed star
)
"""Outlines of about radius 1 without a direction."""

POINTED: tuple[Outline, ...] = (
    ((1.0, 0.0), (0.2, 0.7), (0.2, 0.28), (-1.0, 0.28), (-1.0, -0.28), (0.2, -0.28), (0.2, -0.7)),
    ((1.0, 0.0), (-0.9, 0.75), (-0.45, 0.0), (-0.9, -0.75)),  # dart
    ((1.0, 0.0), (-0.8, 0.55), (-0.8, -0.55)),  # wedge
    ((1.0, 0.0), (0.25, 0.7), (-0.8, 0.7), (-0.8, -0.7), (0.25, -0.7)),  # house
    ((1.0, 0.0), *((0.6 * x - 0.3, 0.6 * y) for x, y in _spokes(24, 1.0)[3:-2])),  # drop
)
"""Outlines of about radius 1 that point along +x; the first is an arrow."""


def builder(
    classes: int, render: Callable[[int, np.random.Generator], Pixels]
) -> Callable[[str, int, np.random.Generator], tuple[Pixels, npt.NDArray[np.int64]]]:
    """Make the ``build`` of a rendered task of so many classes.

    Args:
        classes: how many.
        render: draws one image (CANVAS, CANVAS, 3) of a label.
    """

    def build(
        split: str,  # noqa: ARG001  # rendered images never repeat: any stream serves any split
        count: int,
        random: np.random.Generator,
    ) -> tuple[Pixels, npt.NDArray[np.int64]]:
        labels = balanced(count, classes, random)
        return np.stack([render(label, random) for label in labels.tolist()]), labels

    return build


def balanced(count: int, classes: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return (count,) labels in random order, no class more than one image ahead of another."""
    return random.permutation(np.arange(count, dtype=np.int64) % classes)


def backdrop(random: np.random.Generator) -> Pixels:
    """Paint soft patches of related colours with a little grain; from plain to busy.

    Returns:
        (CANVAS, CANVAS, 3) uint8.
    """
    cells = int(random.integers(1, 7))
    base = random.uniform(30, 225, 3)
    patches = base + random.normal(0, random.uniform(0, 24), (cells, cells, 3))
    small = Image.fromarray(np.clip(patches, 0, 255).astype(np.uint8))
    smooth = np.asarray(small.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC))
    grain = random.normal(0, random.uniform(0, 6), (CANVAS, CANVAS, 1))
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)


def contrasting(behind: Pixels, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw a colour that stands out from ``behind`` in brightness, so that no figure is lost."""
    level = float((behind.reshape(-1, 3) @ _LUMA).mean())
    while True:
        colour = random.uniform(0, 255, 3)
        if abs(float(colour @ _LUMA) - level) >= _CONTRAST:
            return colour


def paint(canvas: Pixels, mask: Image.Image, colour: npt.NDArray[np.float64]) -> Pixels:
    """Lay ``colour`` over ``canvas`` where ``mask`` ("L", CANVAS square) is bright."""
    solid = Image.new("RGB", mask.size, tuple(np.rint(colour).astype(int).tolist()))
    return np.asarray(Image.composite(solid, Image.fromarray(canvas), mask))


def stamp(
    canvas: Pixels,
    outline: Outline,
    colour: npt.NDArray[np.float64],
    *,
    centre: tuple[float, float],
    radius: float,
    angle: float,
) -> Pixels:
    """Fill an outline, drawn at four times the size and averaged down: soft, exact edges.

    Args:
        canvas: (CANVAS, CANVAS, 3) uint8.
        outline: corners about the origin, within :data:`REACH` of it.
        colour: (3,) of the figure.
        centre: (x, y) in pixels; parts outside the canvas are cut off.
        radius: in pixels.
        angle: in radians, anticlockwise on the screen.

    Returns:
        A new canvas.
    """
    # Only the window that the figure can touch is drawn and blended.
    reach = math.ceil(radius * REACH) + 1
    left, top = math.floor(centre[0]) - reach, math.floor(centre[1]) - reach
    side = 2 * reach + 1
    cos, sin = math.cos(angle) * radius, math.sin(angle) * radius
    corners = [
        (
            (centre[0] - left + x * cos - y * sin) * _SUPERSAMPLE,
            (centre[1] - top - x * sin - y * cos) * _SUPERSAMPLE,  # rows count downwards
        )
        for x, y in outline
    ]
    window = Image.new("L", (side * _SUPERSAMPLE, side * _SUPERSAMPLE), 0)
    ImageDraw.Draw(window).polygon(corners, fill=255)
    mask = Image.new("L", (CANVAS, CANVAS), 0)
    mask.paste(window.reduce(_SUPERSAMPLE), (left, top))
    return paint(canvas, mask, colour)
