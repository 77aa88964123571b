"""From the arguments of ``predict`` to a list of images."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from adapterbank.errors import ImageError, InputError

STDIN = "-"


def collect(arguments: Sequence[str], stdin: IO[str]) -> list[Path | ImageError]:
    """Find all images that arguments name, in their order.

    A file is taken whatever its name, and so is a path that does not exist: it will be reported by
    name like any other image that cannot be read. A folder means the image files in it and below,
    sorted. ``*``, ``?``, ``[…]`` and ``**`` are patterns unless a file has exactly that name. ``-``
    means paths from standard input, one a line.

    Args:
        arguments: as given on the command line.
        stdin: read for ``-``, once.

    Returns:
        Paths, and an error in the place of each argument that names no image.

    Raises:
        InputError: nothing at all was found, or ``-`` was given twice.
    """
    if arguments.count(STDIN) > 1:
        raise InputError("- means standard input, which can be read only once")
    images: list[Path | ImageError] = []
    any_path = False
    for argument in arguments:
        paths = list(_expand(argument, stdin))
        any_path = any_path or bool(paths)
        images += paths or [ImageError(argument, "no image here")]
    if not any_path:
        raise InputError(
            f"No image to predict: {', '.join(arguments)} matched nothing",
            fix="name files, folders or patterns such as 'photos/*.jpg'",
        )
    return images


def _expand(argument: str, stdin: IO[str]) -> Iterator[Path]:
    if argument == STDIN:
        for line in stdin:
            name = line.rstrip("\r\n")
            if name:
                yield from _inside(Path(name))
        return
    path = Path(argument)
    if _exists(path) or not glob.has_magic(argument):
        yield from _inside(path)
        return
    # Not Path.glob: a pattern may be absolute or begin with "..".
    matches: Iterable[str] = glob.iglob(argument, recursive=True)  # noqa: PTH207
    for match in sorted(matches):
        yield from _inside(Path(match))


def _inside(path: Path) -> Iterator[Path]:
    """Yield a file itself, or the images in a folder and below, hidden ones left out."""
    from adapterbank.data.images import SUFFIXES

    if not (_exists(path) and path.is_dir()):
        yield path
        return
    for inside in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in inside.relative_to(path).parts)
        if inside.suffix.lower() in SUFFIXES and not hidden and inside.is_file():
            yield inside


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a NUL
        return False
