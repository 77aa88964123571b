"""From a task's ``data`` URI to checked splits: embedded tasks, torchvision sets, folders."""

from __future__ import annotations

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
from adapterbank.data.images import to_pixels
from adapterbank.data.selection import Rows, Selection
from adapterbank.data.splits import generator
from adapterbank.errors import UnknownName
from adapterbank.records import InputSpec

EMBEDDED = "adapterbank.data.tasks"
"""The catalogue of embedded tasks; ``catalog.names(EMBEDDED)`` lists them."""


def select_images(uri: str, *, spec: InputSpec, limits: Limits, seed: int, root: Path) -> Selection:
    """Select the images of a task, of whatever its URI names; none is decoded yet.

    The same URI, spec, limits and seed give the same pixels on every machine.

    Args:
        uri: ``embedded://NAME`` (see :data:`EMBEDDED`), ``torchvision://NAME`` (VTAB-1k rule: at
            most 800 and 200 images of the training split, the whole test split) or a folder of
            class folders, with or without splits.
        spec: what the images are squashed to.
        limits: images to use at most of each split, chosen class by class.
        seed: decides which images are chosen and, for folders without splits, where they stand.
        root: where relative folders start; downloads land in ``work/downloads`` under it.

    Raises:
        UnknownName: no embedded task, torchvision set or kind of source of that name.
        FetchError: a set is not there and cannot be downloaded.
        InputError: the folder is missing.
        ConfigError: the folder is not laid out as documented.
    """
    scheme, mark, name = uri.partition("://")
    if not mark:
        folder = folders.scan(root / Path(uri).expanduser(), limits=limits, seed=seed)
        return replace(folders.select(folder, spec), source=_neutral(uri, root))
    if scheme == "embedded":
        return _embedded(name, spec, limits, seed)
    if scheme == "torchvision":
        return published.select(name, spec, limits, seed, root / "work" / "downloads")
    raise UnknownName("kind of source", f"{scheme}://", ("embedded://", "torchvision://"))


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
