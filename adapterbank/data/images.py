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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError

from adapterbank.data.modes import to_rgb, upright
from adapterbank.errors import ImageError, InputError, UnknownName
from adapterbank.records import InputSpec

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "load_batch",
    "load_pixels",
    "normalise",
    "open_image",
    "to_pixels",
]

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused: twice PIL's own alarm, 512 MiB once decoded to RGB."""

SUFFIXES = frozenset(
    ".avif .bmp .dib .gif .ico .jfif .jp2 .jpe .jpeg .jpg .pbm .pcx .pgm .png .pnm .ppm .sgi .tga"
    " .tif .tiff .webp".split()
)
"""Lower-case file endings that mark a file in a folder as an image."""

# Named, because PIL would otherwise try every plugin it has on a stranger's bytes; the EPS one
# starts Ghostscript.
_FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA",
    "TIFF", "WEBP",
)  # fmt: skip

# What PIL's plugins raise on corrupt bytes, as found by flipping bits of every format above.
_DECODE_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,  # with NotImplementedError
    MemoryError,
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


# One for the process because the filters it guards are the process's.
_quiet = _Quiet()


def open_image(
    source: Path | bytes, *, name: str | None = None, at_least: tuple[int, int] | None = None
) -> Image.Image:
    """Decode one image to upright RGB.

    EXIF rotation is applied, 16-bit and floating-point greys are scaled rather than clipped, CMYK
    and LAB are converted, transparency is composited on white, and an animation gives its first
    frame. Colour profiles are ignored, as torchvision does.

    Args:
        source: a file, or the bytes of one.
        name: what errors call the image; the path by default.
        at_least: (height, width) that the caller will shrink to. A large JPEG is then decoded at
            1/2, 1/4 or 1/8 scale, never below this size, which is several times cheaper.

    Returns:
        An ``RGB`` image that holds no file open.

    Raises:
        ImageError: the file is missing, empty, truncated, corrupt, not an image or larger than
            :data:`MAX_PIXELS`; the message names it and says which.
    """
    label = name or (str(source) if isinstance(source, Path) else "<bytes>")
    try:
        if isinstance(source, Path):
            if not source.is_file():
                reason = "is not a file" if source.exists() else "does not exist"
                raise ImageError(label, reason)
            empty = source.stat().st_size == 0
        else:
            empty = not source
        if empty:
            raise ImageError(label, "is empty (0 bytes)")
        with _quiet(), Image.open(_handle(source), formats=_FORMATS) as image:
            return _decode(image, label, at_least)
    except UnidentifiedImageError as error:
        raise ImageError(label, "is not an image, or its header is corrupt") from error
    except Image.DecompressionBombError as error:
        raise ImageError(label, f"has more than the {MAX_PIXELS:,} pixels allowed") from error
    except _DECODE_ERRORS as error:
        raise ImageError(label, f"cannot be decoded: {_reason(error)}") from error


def to_pixels(image: Image.Image, spec: InputSpec) -> torch.Tensor:
    """Squash an image to the registry's input size, antialiased, ignoring aspect.

    Args:
        image: any PIL image; other modes are converted as :func:`open_image` does.
        spec: size and interpolation.

    Returns:
        (3, H, W) uint8, contiguous.

    Raises:
        UnknownName: the interpolation is not one of bicubic, bilinear, lanczos, nearest.
    """
    if spec.interpolation not in _RESAMPLING:
        raise UnknownName("interpolation", spec.interpolation, _RESAMPLING)
    height, width = spec.size
    rgb = image if image.mode == "RGB" else to_rgb(image)
    small = rgb.resize((width, height), _RESAMPLING[spec.interpolation])
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()


def load_pixels(source: Path | bytes, spec: InputSpec, *, name: str | None = None) -> torch.Tensor:
    """Decode one image and squash it: the one way from a file to a backbone's pixels.

    Args:
        source: a file, or the bytes of one.
        spec: size and interpolation.
        name: what errors call the image.

    Returns:
        (3, H, W) uint8.

    Raises:
        ImageError: see :func:`open_image`.
    """
    # Twice the size leaves the antialiasing filter something to work on.
    height, width = spec.size
    return to_pixels(open_image(source, name=name, at_least=(2 * height, 2 * width)), spec)


def load_batch(
    paths: Sequence[Path],
    spec: InputSpec,
    *,
    threads: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[torch.Tensor, dict[int, ImageError]]:
    """Decode many files with a thread pool (PIL releases the interpreter lock).

    Only one uint8 tensor is allocated, 150 KB an image at 224 px.

    Args:
        paths: the files, any number.
        spec: size and interpolation.
        threads: how many files to decode at a time.
        progress: told (done, total) after each file, from the calling thread.

    Returns:
        (B, 3, H, W) uint8 in the order of ``paths``, and the error of each row that could not be
        decoded (its pixels are zero).
    """
    pixels = torch.zeros((len(paths), 3, *spec.size), dtype=torch.uint8)
    failures: dict[int, ImageError] = {}

    def fill(row: int) -> ImageError | None:
        try:
            pixels[row] = load_pixels(paths[row], spec)
        except ImageError as error:
            return error
        return None

    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="decode") as pool:
        for row, error in enumerate(pool.map(fill, range(len(paths)))):
            if error is not None:
                failures[row] = error
            if progress is not None:
                progress(row + 1, len(paths))
    return pixels, failures


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


def _handle(source: Path | bytes) -> Path | BytesIO:
    return source if isinstance(source, Path) else BytesIO(source)


def _reason(error: BaseException) -> str:
    """Say in one short line what PIL said, if it said anything."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _decode(image: Image.Image, label: str, at_least: tuple[int, int] | None) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        # PIL checks too, but a caller may have switched that off for the whole process.
        raise ImageError(label, f"has {width:,} x {height:,} pixels, {MAX_PIXELS:,} are allowed")
    orientation = _orientation(image)
    if at_least is not None:
        # PIL wants (width, height) of the picture as stored; 5 to 8 are stored lying on a side.
        image.draft(None, at_least if orientation >= 5 else at_least[::-1])
    image.load()
    return upright(to_rgb(image), orientation)


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation; a broken EXIF block is no reason to refuse the picture."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DECODE_ERRORS:
        return 1
    return value if isinstance(value, int) else 1
