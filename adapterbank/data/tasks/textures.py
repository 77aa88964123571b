"""Which surface a small grey crop shows: pieces of the photographs that scikit-image ships."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt
from PIL import Image

from adapterbank.data.images import open_image
from adapterbank.data.splits import generator, partition
from adapterbank.data.tasks._draw import CANVAS, balanced
from adapterbank.errors import FetchError

# Class -> file and the part of it (left, top, right, bottom) that shows the surface.
_SURFACES = {
    "brick": ("brick.png", (0, 0, 512, 512)),
    "coins": ("coins.png", (0, 0, 384, 303)),
    "fundus": ("retina.jpg", (320, 320, 1088, 1088)),
    "fur": ("chelsea.png", (0, 0, 451, 300)),
    "grass": ("grass.png", (0, 0, 512, 512)),
    "gravel": ("gravel.png", (0, 0, 512, 512)),
    "handwriting": ("text.png", (0, 0, 448, 172)),
    "lawn": ("camera.png", (0, 352, 512, 512)),
    "machine": ("motorcycle_left.png", (90, 60, 690, 450)),
    "moon": ("moon.png", (0, 0, 512, 512)),
    "print": ("page.png", (0, 0, 384, 191)),
    "stars": ("hubble_deep_field.jpg", (0, 0, 1000, 872)),
    "tissue": ("ihc.png", (0, 0, 512, 512)),
}

CLASSES = tuple(_SURFACES)
DESCRIPTION = "surface in a small grey crop of one of 13 photographs of scikit-image"
SIZES = {"train": 800, "val": 200, "test": 800}

_CELL = 60  # px; a photograph is cut into such cells, and a crop never leaves its cell
_GAP = 4  # px left unused between cells, so that no filter reaches into another split
_CROP = (26, 52)  # px, smallest and largest side of a crop
_FLAT = 4.0  # crops whose greys vary less than this show no surface
_TRIES = 12


@dataclass(frozen=True, kw_only=True)
class _Surface:
    grey: Image.Image
    cells: dict[str, tuple[tuple[int, int], ...]]  # split -> top left corners


def build(
    split: str, count: int, random: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Cut ``count`` crops of varied size, place, brightness and contrast.

    Each photograph is divided into cells of 60 px with gaps, and the cells once and for all
    60 : 20 : 20 into the splits, so no pixel serves two of them. Crops of one split may overlap.

    Args:
        split: ``train``, ``val`` or ``test``.
        count: how many.
        random: chooses the crops.

    Returns:
        (count, CANVAS, CANVAS, 3) uint8 images, all grey, and (count,) int64 labels.
    """
    labels = balanced(count, len(CLASSES), random)
    images = [_crop(_surface(CLASSES[label]), split, random) for label in labels.tolist()]
    return np.stack(images), labels


def _crop(surface: _Surface, split: str, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    cells = surface.cells[split]
    for _ in range(_TRIES):
        left, top = cells[random.integers(len(cells))]
        side = int(random.integers(_CROP[0], _CROP[1], endpoint=True))
        x, y = random.integers(0, _CELL - side, 2, endpoint=True)
        piece = surface.grey.crop((left + x, top + y, left + x + side, top + y + side))
        if float(np.asarray(piece).std()) >= _FLAT:
            break
    large = np.asarray(piece.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC), dtype=np.float64)
    # Brightness and contrast are the photograph's, not the surface's: make them vary in all.
    level, spread = random.uniform(90, 165), random.uniform(25, 55)
    grey = (large - large.mean()) * (spread / max(float(large.std()), 1.0)) + level
    return np.repeat(np.clip(np.rint(grey), 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


@cache
def _surface(name: str) -> _Surface:
    file, (left, top, right, bottom) = _SURFACES[name]
    path = resources.files("skimage") / "data" / file
    try:
        photograph = open_image(path.read_bytes(), name=file)
    except FileNotFoundError as error:
        raise FetchError(
            f"scikit-image does not ship the photograph {file}",
            fix="pip install 'scikit-image>=0.25'",
        ) from error
    step = _CELL + _GAP
    corners = [
        (x, y)
        for y in range(top, bottom - _CELL + 1, step)
        for x in range(left, right - _CELL + 1, step)
    ]
    held_out = max(1, len(corners) // 5)
    counts = (len(corners) - 2 * held_out, held_out, held_out)
    parts = partition([0] * len(corners), counts, generator(0, "textures", name))
    cells = {
        split: tuple(corners[i] for i in part) for split, part in zip(SIZES, parts, strict=True)
    }
    return _Surface(grey=photograph.convert("L"), cells=cells)
