"""From a task's ``data`` URI to checked splits: embedded tasks, torchvision sets, folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from adapterbank import catalog
from adapterbank.config.bank import Limits
from adapterbank.data import folders, published
from adapterbank.data.base import SPLITS, Split, TaskData, check_task, shared_images
from adapterbank.data.batches import Progress
from adapterbank.data.images import to_pixels
from adapterbank.data.splits import generator
from adapterbank.errors import UnknownName
from adapterbank.records import InputSpec

EMBEDDED = "adapterbank.data.tasks"
"""The catalogue of embedded tasks; ``catalog.names(EMBEDDED)`` lists them."""


def load_source(
    uri: str,
    *,
    spec: InputSpec,
    limits: Limits,
    seed: int,
    root: Path,
    progress: Progress | None = None,
    skip_unreadable: bool = False,
) -> TaskData:
    """Build a task's splits from whatever its URI names.

    The same URI, spec, limits and seed give the same pixels on every machine.

    Args:
        uri: ``embedded://NAME`` (see :data:`EMBEDDED`), ``torchvision://NAME`` (VTAB-1k rule: at
            most 800 and 200 images of the training split, the whole test split) or a folder of
            class folders, with or without splits.
        spec: what the images are squashed to.
        limits: images to use at most of each split, chosen class by class.
        seed: decides which images are chosen and, for folders without splits, where they stand.
        root: where relative folders start; downloads land in ``work/downloads`` under it.
        progress: told (done, total) images on the way.
        skip_unreadable: leave out images of a folder that cannot be decoded, and say so in the
            notes, rather than refuse the folder.

    Returns:
        The task, having passed :func:`~adapterbank.data.base.check_task`.

    Raises:
        UnknownName: no embedded task, torchvision set or kind of source of that name.
        FetchError: a set is not there and cannot be downloaded.
        InputError: the folder is missing or not laid out as documented, or images in it cannot be
            decoded (all are listed).
        ConfigError: the data does not pass the check.
    """
    scheme, mark, name = uri.partition("://")
    if not mark:
        pool = folders.scan(root / Path(uri).expanduser(), limits=limits, seed=seed)
        data = folders.decode(pool, spec, progress, skip_unreadable=skip_unreadable)
        return check_task(replace(data, source=_neutral(uri, root)))
    if scheme == "embedded":
        return check_task(_embedded(name, spec, limits, seed, progress))
    if scheme == "torchvision":
        downloads = root / "work" / "downloads"
        data = published.load(name, spec, limits, seed, downloads, progress)
        # The published splits are kept, or figures could not be compared; but it is said.
        notes = [
            f"{count} {one} images are also in {other}"
            for (one, other), count in shared_images(data).items()
        ]
        data = replace(data, notes="; ".join([data.notes, *notes]))
        return check_task(data, allow_shared=True)
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


def _embedded(
    name: str, spec: InputSpec, limits: Limits, seed: int, progress: Progress | None
) -> TaskData:
    task = catalog.load(EMBEDDED, name, kind="embedded task")
    sizes = {
        split: size if (limit := limits.of(split)) is None else min(size, limit)
        for split, size in task.SIZES.items()
    }
    total, done = sum(sizes.values()), 0
    splits = {}
    for split in SPLITS:
        images, labels = task.build(split, sizes[split], generator(seed, name, split))
        pixels = torch.stack([to_pixels(Image.fromarray(image), spec) for image in images])
        splits[split] = Split(images=pixels, labels=torch.from_numpy(labels))
        done += sizes[split]
        if progress is not None:
            progress(done, total)
    return TaskData(
        classes=task.CLASSES, source=f"embedded://{name}", notes=task.DESCRIPTION, **splits
    )
