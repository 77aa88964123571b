"""From the arguments of ``predict`` to a list of images."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import IO

from adapterbank.cli import render
from adapterbank.errors import ImageError, InputError
from adapterbank.records import NOT_UTF8, is_utf8

STDIN = "-"


def collect(
    arguments: Sequence[str], stdin: IO[str], *, missing: bool = True
) -> list[Path | ImageError]:
    """Find all images that arguments name, in their order.

    A file is taken whatever its name, and so is a path that does not exist: it will be reported by
    name like any other image that cannot be read. A folder means the image files in it and below,
    sorted. ``*``, ``?``, ``[…]`` and ``**`` are patterns unless a file has exactly that name. ``-``
    means paths from standard input, one a line.

    Args:
        arguments: as given on the command line.
        stdin: read for ``-``, once.
        missing: be content with paths of which none exists.

    Returns:
        Paths, and an error in the place of each argument that names no image, and of each name
        that is not UTF-8.

    Raises:
        InputError: nothing at all was found, or nothing that exists, or ``-`` was given twice.
    """
    if arguments.count(STDIN) > 1:
        raise InputError("- means standard input, which can be read only once")
    images: list[Path | ImageError] = []
    any_path = False
    for argument in arguments:
        paths = [_readable(path) for path in _expand(argument, stdin)]
        any_path = any_path or bool(paths)
        images += paths or [ImageError(argument, "no image here")]
    if not any_path:
        raise InputError(
            f"No image to predict: {', '.join(arguments)} matched nothing",
            fix="name files, folders or patterns such as 'photos/*.jpg'",
        )
    if not missing and not any(isinstance(one, Path) and _exists(one) for one in images):
        raise InputError(f"{', '.join(arguments)}: no such file or folder")
    return images


def _expand(argument: str, stdin: IO[str]) -> Iterator[Path]:
    if argument == STDIN:
        if isinstance(stdin, TextIOWrapper):
            stdin.reconfigure(errors="surrogateescape")  # or one name would stop all others
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


def _readable(path: Path) -> Path | ImageError:
    return path if is_utf8(str(path)) else ImageError(str(path), NOT_UTF8)


def _inside(path: Path) -> Iterator[Path]:
    """Yield a file itself, or the images in a folder and below; what is left out is noted."""
    from adapterbank.data.left_out import Tally, sentences
    from adapterbank.data.scan import is_hidden, reason_by_name

    if not (_exists(path) and path.is_dir()):
        yield path
        return
    tally = Tally()
    for inside in sorted(path.rglob("*")):
        name = inside.relative_to(path)
        if inside.is_dir():
            reason = "links to folders, which are not followed" if inside.is_symlink() else None
        else:
            reason = "hidden" if any(map(is_hidden, name.parts)) else reason_by_name(name.name)
        if reason is not None:
            tally.add(reason, str(name))
        elif not inside.is_dir():
            yield inside  # also a link to nothing, of which the answer will be an error
    for line in sentences(tally.result()):
        render.note(line)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a NUL
        return False
