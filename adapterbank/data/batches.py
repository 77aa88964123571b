"""Many images into one uint8 tensor, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from adapterbank.data.images import load_pixels
from adapterbank.errors import ImageError
from adapterbank.records import InputSpec

Progress = Callable[[int, int], None]
"""Told (done, total); called from the thread that asked for the work."""


def load_batch(
    paths: Sequence[Path], spec: InputSpec, *, threads: int = 4, progress: Progress | None = None
) -> tuple[torch.Tensor, dict[int, ImageError]]:
    """Decode many files; see :func:`read_rows`.

    Args:
        paths: the files, any number.
        spec: size and interpolation.
        threads: how many files to decode at a time.
        progress: told about each file.

    Returns:
        (B, 3, H, W) uint8 in the order of ``paths``, and the errors by row.
    """
    return read_rows(
        lambda row: load_pixels(paths[row], spec),
        len(paths),
        spec,
        threads=threads,
        progress=progress,
    )


def read_rows(
    read: Callable[[int], torch.Tensor],
    count: int,
    spec: InputSpec,
    *,
    threads: int = 4,
    progress: Progress | None = None,
) -> tuple[torch.Tensor, dict[int, ImageError]]:
    """Fill a tensor row by row with a thread pool: PIL releases the interpreter lock.

    One bad image does not stop the others, and the only large allocation is the result: uint8,
    150 KB an image at 224 px.

    Args:
        read: gives the pixels (3, H, W) of a row; may raise ImageError.
        count: how many rows.
        spec: the size of the rows.
        threads: how many rows to read at a time.
        progress: told about each row.

    Returns:
        (count, 3, H, W) uint8, and the error of each row that could not be read (it is zero).
    """
    pixels = torch.zeros((count, 3, *spec.size), dtype=torch.uint8)
    failures: dict[int, ImageError] = {}

    def fill(row: int) -> ImageError | None:
        try:
            pixels[row] = read(row)
        except ImageError as error:
            return error
        return None

    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="decode") as pool:
        for row, error in enumerate(pool.map(fill, range(count))):
            if error is not None:
                failures[row] = error
            if progress is not None:
                progress(row + 1, count)
    return pixels, failures
