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
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError, _imaging
from PIL.TiffImagePlugin import TiffImageFile

from adapterbank.data.modes import to_rgb, upright
from adapterbank.errors import ImageError, InputError, UnknownName
from adapterbank.records import InputSpec

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused: twice PIL's own alarm."""

MAX_BYTES = 800 << 20
"""What all images that threads decode at once may take together; further ones wait for room."""

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

# Bytes of memory for each pixel while PIL decodes, measured with PIL 13; 4 for all other formats.
_BYTES_A_PIXEL = {"AVIF": 16, "JPEG2000": 24, "WEBP": 16}
_BYTES_A_PIXEL_PROGRESSIVE = 12  # of a JPEG whose coefficients are all kept until the last scan
_BLOCK = 64 << 20  # above what glibc may take from its heap
_ROWS_AT_ONCE = (278, 323)  # TIFF's tags: height of a strip, of a tile; each is one buffer
_EXACT_PIXELS = 1 << 25  # a larger image is shrunk by whole numbers before it is squashed

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
    """Lets threads decode at once only what fits into :data:`MAX_BYTES`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = 0

    @contextmanager
    def __call__(self, size_bytes: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + size_bytes <= MAX_BYTES)
            self._taken += size_bytes
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size_bytes
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
    return _with_opened(source, name, _full, _bytes_full)


def load_pixels(source: Path | bytes, spec: InputSpec, *, name: str | None = None) -> torch.Tensor:
    """Decode one image and squash it: the one way from a file to a backbone's pixels.

    Like :func:`open_image` and :func:`to_pixels` in turn, but a large JPEG is decoded at 1/2, 1/4
    or 1/8 scale (never below twice the input size), which is several times cheaper, and any other
    image of more than 33 million pixels is shrunk by up to 8 in the same way.

    Args:
        source: a file, or the bytes of one.
        spec: size and interpolation.
        name: what errors call the image.

    Returns:
        (3, H, W) uint8, contiguous.

    Raises:
        ImageError: see :func:`open_image`; or decoding it would take more than
            :data:`MAX_BYTES`.
        UnknownName: see :func:`to_pixels`.
    """
    resample = _resampling(spec)
    return _with_opened(
        source,
        name,
        lambda image: _squashed(image, spec.size, resample, draft=True),
        lambda image: _bytes_squashed(image, spec.size),
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
        ImageError: it was not decoded yet, and cannot be; or it has no pixels.
        UnknownName: the interpolation is not one of bicubic, bilinear, lanczos, nearest.
    """
    resample = _resampling(spec)
    if 0 in image.size:
        raise ImageError(name, f"has no pixels: it is {image.width}×{image.height}")
    with _decoding(name), _room(min(_bytes_squashed(image, spec.size), MAX_BYTES)):
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


@cache
def _use_large_blocks() -> None:
    """Let PIL keep large pictures in blocks that go back to the system once they are freed.

    Smaller ones, its own choice, would stay with the thread that had them (glibc): each thread's
    largest picture would count for ever, whatever room there is.
    """
    _imaging.set_block_size(_BLOCK)


def _formats() -> list[str]:
    """List the formats that this PIL can open: the earliest that will do has no AVIF."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


@contextmanager
def _decoding(label: str) -> Iterator[None]:
    """Turn everything PIL may raise into an ImageError that names the image."""
    _use_large_blocks()
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
    source: Path | bytes,
    name: str | None,
    use: Callable[[Image.Image], Result],
    size_bytes: Callable[[Image.Image], int],
) -> Result:
    """Open a source for ``use`` once there is room for the bytes that it will take."""
    label = name or (str(source) if isinstance(source, Path) else "<bytes>")
    with _decoding(label):
        if isinstance(source, Path) and not source.is_file():
            raise ImageError(label, "is not a file" if source.exists() else "does not exist")
        if not (source.stat().st_size if isinstance(source, Path) else source):
            raise ImageError(label, "is empty (0 bytes)")
        handle = source if isinstance(source, Path) else BytesIO(source)
        with Image.open(handle, formats=_formats()) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                # PIL checks too, but a caller may have switched that off for the whole process.
                raise ImageError(
                    label, f"has {width:,} x {height:,} pixels, {MAX_PIXELS:,} are allowed"
                )
            needed = size_bytes(image)
            if needed > MAX_BYTES:
                raise ImageError(
                    label,
                    f"has {width:,} x {height:,} pixels, which take {needed >> 20:,} MiB to decode"
                    f" from this kind of {image.format}; {MAX_BYTES >> 20} are allowed",
                )
            with _room(needed):
                return use(image)


def _bytes_decoded(image: Image.Image) -> int:
    """Bound the memory that PIL takes to decode an image, before it does."""
    pixels = image.width * image.height
    if image.format == "ICO":  # a PNG within, of any size whatever the header says
        return max(0, MAX_BYTES - 8 * pixels)
    if image.info.get("progressive"):
        return pixels * _BYTES_A_PIXEL_PROGRESSIVE
    if isinstance(
        image, TiffImageFile
    ):  # PIL turns it, into a second picture; a strip is decoded at once
        tags = image.tag_v2
        rows = min([image.height, *(int(tags[tag]) for tag in _ROWS_AT_ONCE if tag in tags)])
        return pixels * (4 if _orientation(image) == 1 else 8) + 4 * image.width * rows
    return pixels * _BYTES_A_PIXEL.get(image.format or "", 4)


def _bytes_full(image: Image.Image) -> int:
    # At most all there is: who asks for a picture at its full size has the memory for it.
    return min(_bytes_decoded(image) + 8 * image.width * image.height, MAX_BYTES)


def _bytes_squashed(image: Image.Image, size: tuple[int, int]) -> int:
    across, down = _shrink(image, size)
    return _bytes_decoded(image) + 4 * (image.width // across) * (image.height // down)


def _shrink(image: Image.Image, size: tuple[int, int]) -> tuple[int, int]:
    """By how much an image is shrunk across and down first; never below twice ``size``."""
    if image.width * image.height <= _EXACT_PIXELS:
        return 1, 1
    side = max(size)  # it may lie on a side
    across, down = (min(8, max(1, pixels // (2 * side))) for pixels in image.size)
    return across, down


def _full(image: Image.Image) -> Image.Image:
    image.load()
    orientation = _orientation(image)  # PIL has turned a TIFF by now, and says so
    turned = upright(to_rgb(image), orientation)
    if orientation != 1:
        turned.info = {}  # or whoever reads the orientation next would turn it again
    return turned.copy() if turned is image else turned


def _squashed(
    image: Image.Image, size: tuple[int, int], resample: Image.Resampling, *, draft: bool
) -> torch.Tensor:
    drafted = image.draft(None, _stored(size, _orientation(image), 2)) if draft else None
    image.load()
    orientation = _orientation(image)  # PIL has turned a TIFF by now, and says so
    # A side that is not divided evenly is rounded up when shrunk: the box is the part that counts.
    box = None if drafted is None else drafted[1]
    shrink = _shrink(image, size)
    if shrink != (1, 1):
        box = (0, 0, image.width / shrink[0], image.height / shrink[1])
    # Squash as stored and turn the small result.
    stored = _stored(size, orientation)
    squashed = upright(to_rgb(image, shrink).resize(stored, resample, box=box), orientation)
    return torch.from_numpy(np.array(squashed)).permute(2, 0, 1).contiguous()


def _stored(size: tuple[int, int], orientation: int, times: int = 1) -> tuple[int, int]:
    """Width and height of what becomes ``size`` upright; 5 to 8 are stored lying on a side."""
    height, width = (times * side for side in size)
    return (height, width) if orientation >= 5 else (width, height)


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
