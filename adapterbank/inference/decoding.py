"""Images as callers have them, decoded to pixels while the batch before them is answered."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from PIL import Image
from torch import Tensor

from adapterbank.data.batches import in_batches
from adapterbank.data.images import load_pixels, to_pixels
from adapterbank.errors import ImageError, InputError
from adapterbank.records import InputSpec

ImageInput = Path | str | bytes | Image.Image
"""A file's path, a file's bytes, or a decoded image."""

With = TypeVar("With")
_EXPECTED = (
    "expected a path, the bytes of a file (read() of an open one) or a PIL image (Image.fromarray"
    " of an array)"
)


@dataclass(frozen=True)
class Decoded:
    """One image: its pixels (3, H, W) uint8, or the error that names it."""

    name: str
    content: Tensor | ImageError
    seconds: float


def decoded_batches(
    pairs: Iterable[tuple[ImageInput, With]], spec: InputSpec, size: int, *, ahead: bool = True
) -> Iterator[list[tuple[Decoded, With]]]:
    """Decode images by the batch, each with whatever goes with it.

    Args:
        pairs: images and what goes with them.
        spec: what pixels are made to.
        size: images in a batch.
        ahead: decode the next batch meanwhile; see :func:`~adapterbank.data.batches.in_batches`.
    """

    def decode(numbered: tuple[int, tuple[ImageInput, With]]) -> tuple[Decoded, With]:
        index, (image, other) = numbered
        return _decode(index, image, spec), other

    return in_batches(decode, enumerate(pairs), size, ahead=ahead)


def _decode(index: int, image: ImageInput, spec: InputSpec) -> Decoded:
    begun = time.perf_counter()
    source = Path(image) if isinstance(image, str) else image
    name = str(source) if isinstance(source, Path) else f"image {index}"
    if not isinstance(source, Path | bytes | Image.Image):
        kind = type(source).__name__
        return Decoded(name, ImageError(name, f"is of type {kind}: {_EXPECTED}"), 0.0)
    try:
        if isinstance(source, Image.Image):
            pixels = to_pixels(source, spec, name=name)
        else:
            pixels = load_pixels(source, spec, name=name)
    except ImageError as error:
        return Decoded(name, error.alone(), 0.0)
    return Decoded(name, pixels, time.perf_counter() - begun)


def paired(
    images: Iterable[ImageInput], others: Sequence[With]
) -> Iterator[tuple[ImageInput, With]]:
    """Pair images, of which nobody knows how many will come, with one other thing each.

    Raises:
        InputError: there are more of the one than of the other.
    """
    boxes = zip_longest(((image,) for image in images), ((other,) for other in others))
    for index, (image, other) in enumerate(boxes):  # in boxes, as an image may be None by mistake
        if image is None or other is None:
            kind = "images" if image is None else "tasks"
            raise InputError(f"the {kind} end after {index}: expected a task for each image")
        yield image[0], other[0]
