"""From a task's ``data`` URI to checked splits: embedded tasks, torchvision sets, folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from adapterbank import catalog
from adapterbank.config.bank import Limits
from adapterbank.data import folders, published
from adapterbank.data.base import SPLITS
from adapterbank.data.batches import Progress
from adapterbank.data.folders import Choices
from adapterbank.data.images import to_pixels
from adapterbank.data.scan import scan
from adapterbank.data.selection import Rows, Selection
from adapterbank.data.splits import generator
from adapterbank.data.subset import take_classes
from adapterbank.errors import InputError, UnknownName
from adapterbank.records import InputSpec, check_utf8

EMBEDDED = "adapterbank.data.tasks"
"""The catalogue of embedded tasks; ``catalog.names(EMBEDDED)`` lists them."""


def select_images(  # noqa: PLR0913  # each is a setting of the task
    uri: str,
    *,
    spec: InputSpec,
    limits: Limits,
    seed: int,
    root: Path,
    classes: Sequence[str] | None = None,
    choices: Choices = Choices(),  # noqa: B008  # frozen
    progress: Progress | None = None,
) -> Selection:
    """Select the images of a task, of whatever its URI names.

    Those of a folder are decoded for that, and no others.

    The same URI, spec, limits and seed give the same pixels on every machine.

    Args:
        uri: ``embedded://NAME`` (see :data:`EMBEDDED`), ``torchvision://NAME`` (VTAB-1k rule: at
            most 800 and 200 images of the training split, the whole test split) or a folder of
            class folders, with or without splits.
        spec: what the images are squashed to.
        limits: images to use at most of each split, chosen class by class.
        seed: decides which images are chosen and, for folders without splits, where they stand.
        root: where relative folders start; downloads land in ``work/downloads`` under it.
        classes: the only ones to use, in this order; None: all.
        choices: what to do about images of a folder that would be refused.
        progress: told of the images that are decoded.

    Raises:
        UnknownName: no embedded task, torchvision set, kind of source or class of that name.
        FetchError: a set is not there and cannot be downloaded.
        InputError: the folder is missing, or images in it cannot be decoded.
        ConfigError: the folder is not laid out as documented.
    """
    scheme, mark, name = uri.partition("://")
    if not mark:
        found = scan(local_folder(uri, root), classes)
        chosen = folders.select(
            found, spec, limits=limits, seed=seed, choices=choices, progress=progress
        )
        told = {"classes": ",".join(classes)} if classes is not None else {}
        told |= {key: str(number) for key, number in chosen.changes.items() if number}
        query = "&".join(f"{key}={value}" for key, value in told.items())
        return replace(chosen, source=_neutral(uri, root) + (f"?{query}" if query else ""))
    whole = limits if classes is None else Limits()
    if scheme == "embedded":
        selection = _embedded(name, spec, whole, seed)
    elif scheme == "torchvision":
        selection = published.select(name, spec, whole, seed, root / "work" / "downloads")
    else:
        raise UnknownName("kind of source", f"{scheme}://", ("embedded://", "torchvision://"))
    if classes is None:
        return selection
    return take_classes(selection, classes, limits=limits, seed=seed)


def local_folder(uri: str, root: Path) -> Path:
    """Return the folder that a task's data names.

    Raises:
        InputError: it names no folder of any user.
    """
    try:
        return root / Path(check_utf8(uri)).expanduser()
    except RuntimeError as error:
        raise InputError(f"{uri}: {error}") from error


def _neutral(uri: str, root: Path) -> str:
    """Name a folder without saying where this machine keeps it: versions hash the name."""
    path = Path(uri).expanduser()
    if not path.is_absolute() and ".." not in path.parts:
        return path.as_posix()
    folder, home = (root / path).resolve(), root.resolve()
    if folder.is_relative_to(home):
        return folder.relative_to(home).as_posix()
    return f"folder://{folder.name}"


def _embedded(name: str, spec: InputSpec, limits: Limits, seed: int) -> Selection:
    task = catalog.load(EMBEDDED, name, kind="embedded task")
    splits = {}
    for split in SPLITS:
        limit, size = limits.of(split), task.SIZES[split]
        count = size if limit is None else min(size, limit)
        images, labels = task.build(split, count, generator(seed, name, split))
        splits[split] = Rows(labels=torch.from_numpy(labels), read=partial(_drawn, images, spec))
    return Selection(
        classes=task.CLASSES,
        splits=splits,
        source=f"embedded://{name}",
        notes=task.DESCRIPTION,
    )


def _drawn(images: npt.NDArray[np.uint8], spec: InputSpec, row: int) -> torch.Tensor:
    return to_pixels(Image.fromarray(images[row]), spec)
