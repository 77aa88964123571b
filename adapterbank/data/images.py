"""From a file to pixels, for every oddity that folders of images hold.

One path serves training and prediction, so an image gives the same pixels in both. Every failure
is an :class:`~adapterbank.errors.ImageError` that names the file; PIL's own exceptions and
warnings never reach the caller.
"""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError

from adapterbank.data.modes import to_rgb, upright
from adapterbank.errors import ImageError, InputError, UnknownName
from adapterbank.records import InputSpec

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused: twice PIL's own alarm, 512 MiB once decoded to RGB.

Images that threads decode at once have no more together; further ones wait."""

SUFFIXES = frozenset(
    (
        ".avif", ".bmp", ".dib", ".gif", ".ico", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm",
        ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".sgi", ".tga", ".tif", ".tiff", ".webp",
    )
)  # fmt: skip
"""Lower-case file endings that mark a file in a folder as an image."""

# Named, because PIL would otherwise try every plugin it has on a stranger's bytes; the EPS one
# starts Ghostscript.
_FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA",
    "TIFF", "WEBP",
)  # fmt: skip

# PIL decodes an image when it is first used, and not from two threads at once.
_LOADING = tuple(threading.Lock() for _ in range(64))

# What PIL's plugins let through on damaged bytes: they check only part of what they parse.
_DECODE_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    AssertionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


Result = TypeVar("Result")


class _Quiet:
    """Mutes PIL's warnings while at least one thread decodes.

    ``warnings.catch_warnings`` alone would leave the filters of a thread that left first in force
    for ever, so the first to enter saves them and the last to leave restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved = warnings.catch_warnings()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._saved.__exit__(None, None, None)


class _Room:
    """Lets threads decode at once only as many pixels as one image may have."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = 0

    @contextmanager
    def __call__(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= MAX_PIXELS)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


# One for the process because the filters it guards are the process's.
_quiet = _Quiet()
_room = _Room()  # as is its memory


def open_image(source: Path | bytes, *, name: str | None = None) -> Image.Image:
    """Decode one image to upright RGB, at its full size.

    EXIF rotation is applied, 16-bit and floating-point greys are scaled rather than clipped, CMYK
    and LAB are converted, transparency is composited on white, and an animation gives its first
    frame. Colour profiles are ignored, as torchvision does.

    Args:
        source: a file, or the bytes of one.
        name: what errors call the image; the path by default.

    Returns:
        An ``RGB`` image that holds no file open.

    Raises:
        ImageError: the file is missing, empty, truncated, corrupt, not an image or larger than
            :data:`MAX_PIXELS`; the message names it and says which.
    """
    return _with_opened(source, name, _full)


def load_pixels(source: Path | bytes, spec: InputSpec, *, name: str | None = None) -> torch.Tensor:
    """Decode one image and squash it: the one way from a file to a backbone's pixels.

    Like :func:`open_image` and :func:`to_pixels` in turn, but a large JPEG is decoded at 1/2, 1/4
    or 1/8 scale (never below twice the input size), which is several times cheaper.

    Args:
        source: a file, or the bytes of one.
        spec: size and interpolation.
        name: what errors call the image.

    Returns:
        (3, H, W) uint8, contiguous.

    Raises:
        ImageError: see :func:`open_image`.
        UnknownName: see :func:`to_pixels`.
    """
    resample = _resampling(spec)
    return _with_opened(
        source, name, lambda image: _squashed(image, spec.size, resample, draft=True)
    )


def to_pixels(image: Image.Image, spec: InputSpec, *, name: str = "<image>") -> torch.Tensor:
    """Squash an image to the registry's input size, antialiased, ignoring aspect.

    Args:
        image: any PIL image, also one that is not decoded yet; it is turned and converted as
            :func:`open_image` does.
        spec: size and interpolation.
        name: what errors call the image.

    Returns:
        (3, H, W) uint8, contiguous.

    Raises:
        ImageError: it was not decoded yet, and cannot be.
        UnknownName: the interpolation is not one of bicubic, bilinear, lanczos, nearest.
    """
    resample = _resampling(spec)
    with _decoding(name), _room(image.width * image.height):
        with _LOADING[id(image) // 64 % len(_LOADING)]:
            image.load()  # once, where threads are given the same image
        return _squashed(image, spec.size, resample, draft=False)


def normalise(pixels: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Scale pixels to [0, 1] and standardise each channel.

    Args:
        pixels: (B, 3, H, W) uint8 of the size that ``spec`` names.
        spec: size, mean and standard deviation.

    Returns:
        (B, 3, H, W) float32 on the device of ``pixels``.

    Raises:
        InputError: another dtype or shape; nothing is converted silently.
    """
    expected = (3, *spec.size)
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or tuple(pixels.shape[1:]) != expected:
        raise InputError(
            f"pixels: got {pixels.dtype} of shape {tuple(pixels.shape)},"
            f" expected torch.uint8 of shape (B, 3, {spec.size[0]}, {spec.size[1]})"
        )
    mean = torch.tensor(spec.mean, device=pixels.device).reshape(3, 1, 1)
    std = torch.tensor(spec.std, device=pixels.device).reshape(3, 1, 1)
    return (pixels.to(torch.float32) / 255 - mean) / std


@contextmanager
def _decoding(label: str) -> Iterator[None]:
    """Turn everything PIL may raise into an ImageError that names the image."""
    try:
        with _quiet():
            yield
    except UnidentifiedImageError as error:
        raise ImageError(label, "is not an image, or its header is corrupt") from error
    except Image.DecompressionBombError as error:
        raise ImageError(label, f"has more than the {MAX_PIXELS:,} pixels allowed") from error
    except _DECODE_ERRORS as error:
        lines = str(error).strip().splitlines()
        reason = lines[0][:200] if lines else type(error).__name__
        raise ImageError(label, f"cannot be decoded: {reason}") from error


def _with_opened(
    source: Path | bytes, name: str | None, use: Callable[[Image.Image], Result]
) -> Result:
    """Open a source for ``use``."""
    label = name or (str(source) if isinstance(source, Path) else "<bytes>")
    with _decoding(label):
        if isinstance(source, Path) and not source.is_file():
            raise ImageError(label, "is not a file" if source.exists() else "does not exist")
        if not (source.stat().st_size if isinstance(source, Path) else source):
            raise ImageError(label, "is empty (0 bytes)")
        handle = source if isinstance(source, Path) else BytesIO(source)
        with Image.open(handle, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                # PIL checks too, but a caller may have switched that off for the whole process.
                raise ImageError(
                    label, f"has {width:,} x {height:,} pixels, {MAX_PIXELS:,} are allowed"
                )
            with _room(width * height):
                return use(image)


def _full(image: Image.Image) -> Image.Image:
    orientation = _orientation(image)
    turned = upright(to_rgb(image), orientation)
    if orientation != 1:
        turned.info = {}  # or whoever reads the orientation next would turn it again
    return turned


def _squashed(
    image: Image.Image, size: tuple[int, int], resample: Image.Resampling, *, draft: bool
) -> torch.Tensor:
    orientation = _orientation(image)
    height, width = size
    # Squash as stored and turn the small result; 5 to 8 are stored lying on a side.
    stored = (height, width) if orientation >= 5 else (width, height)
    drafted = image.draft(None, (2 * stored[0], 2 * stored[1])) if draft else None
    # A side that 8 does not divide is rounded up when drafted: the box is the part that counts.
    box = None if drafted is None else drafted[1]
    squashed = upright(to_rgb(image).resize(stored, resample, box=box), orientation)
    return torch.from_numpy(np.array(squashed)).permute(2, 0, 1).contiguous()


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation; a broken EXIF block is no reason to refuse the picture."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except _DECODE_ERRORS:
        value = None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _resampling(spec: InputSpec) -> Image.Resampling:
    if spec.interpolation not in _RESAMPLING:
        raise UnknownName("interpolation", spec.interpolation, _RESAMPLING)
    return _RESAMPLING[spec.interpolation]
