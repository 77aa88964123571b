"""From any PIL mode and EXIF orientation to an upright RGB picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

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


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: greys scaled to 8 bits, transparency composited on white."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _grey_to_8_bits(np.asarray(image)).convert("RGB")
    if image.has_transparency_data:
        front = image.convert("RGBA")
        white = Image.new("RGBA", front.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, front).convert("RGB")
    return image.convert("RGB")


def _grey_to_8_bits(values: npt.NDArray[np.generic]) -> Image.Image:
    """Scale greys of more than 8 bits to 0-255.

    Integers within 16 bits span 0-65535 and floats within [0, 1] span 0-1, so that brightness is
    comparable between files; anything else (counts, heights, reflectances) spans its own range.
    NaN marks missing data in such files and becomes black.
    """
    with np.errstate(invalid="ignore"):  # a signalling NaN would warn
        grey = values.astype(np.float64)
    finite = grey[np.isfinite(grey)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    top = 1.0 if values.dtype.kind == "f" else 65535.0
    if low >= 0 and high <= top:
        low, high = 0.0, top
    grey = np.nan_to_num(grey, nan=low, posinf=high, neginf=low) - low
    if high > low:  # one value throughout stays black
        grey *= 255 / (high - low)
    return Image.fromarray(np.rint(grey).astype(np.uint8))
