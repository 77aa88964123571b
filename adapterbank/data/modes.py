"""From any PIL mode and EXIF orientation to an upright RGB picture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

_BAND = 1 << 19  # pixels that are converted at once: 20 MB on the way

# EXIF orientation -> what brings the picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a picture as its EXIF orientation says; 1 and unknown values leave it as it is."""
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image, shrink: tuple[int, int] = (1, 1)) -> Image.Image:
    """Convert any mode to RGB: greys scaled to 8 bits, transparency composited on white.

    A band of rows at a time, because some modes take ten times the memory of the result on the way.

    Args:
        image: decoded.
        shrink: how many pixels across and down are averaged to one; the last may be of fewer.

    Returns:
        The picture; ``image`` itself where nothing is to be done.
    """
    if image.mode == "RGB" and not image.has_transparency_data and shrink == (1, 1):
        return image
    across, down = shrink
    rows = max(1, _BAND // (image.width * down)) * down
    grey = image.mode == "F" or image.mode.startswith("I")
    span = _span(image, rows) if grey else (0.0, 0.0)
    rgb = Image.new("RGB", (-(-image.width // across), -(-image.height // down)))
    for top, band in _bands(image, rows):
        part = _grey_to_8_bits(np.asarray(band), *span) if grey else _on_white(band)
        rgb.paste(part.convert("RGB").reduce(shrink), (0, top // down))
    return rgb


def _bands(image: Image.Image, rows: int) -> Iterator[tuple[int, Image.Image]]:
    """Cut a picture into bands of rows, each with its first; a small one is the only band."""
    if image.height <= rows:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    front = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", front.size, (255, 255, 255, 255)), front)


def _span(image: Image.Image, rows: int) -> tuple[float, float]:
    """Find which greys of more than 8 bits become black and white.

    Integers within 16 bits span 0-65535 and floats within [0, 1] span 0-1, so that brightness is
    comparable between files; anything else (counts, heights, reflectances) spans its own range.
    """
    lows, highs, top = [], [], 65535.0
    for _, band in _bands(image, rows):
        values = np.asarray(band)
        top = 1.0 if values.dtype.kind == "f" else 65535.0
        finite = values[np.isfinite(values)]
        if finite.size:
            lows.append(float(finite.min()))
            highs.append(float(finite.max()))
    low, high = min(lows, default=0.0), max(highs, default=0.0)
    return (0.0, top) if low >= 0 and high <= top else (low, high)


def _grey_to_8_bits(values: npt.NDArray[np.generic], low: float, high: float) -> Image.Image:
    """Scale greys from ``low`` to ``high`` to 0-255; NaN marks missing data and becomes black."""
    with np.errstate(invalid="ignore"):  # a signalling NaN would warn
        grey = values.astype(np.float64)
    grey = np.nan_to_num(grey, nan=low, posinf=high, neginf=low) - low
    if high > low:  # one value throughout stays black
        grey *= 255 / (high - low)
    return Image.fromarray(np.rint(grey).astype(np.uint8))
