"""Some classes of a data set as a task of their own, as class-incremental scenarios want it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from adapterbank.config.bank import Limits
from adapterbank.data.base import SPLITS, Split, TaskData, check_task
from adapterbank.data.splits import choose, generator
from adapterbank.errors import UnknownName


def take_classes(data: TaskData, classes: Sequence[str], *, limits: Limits, seed: int) -> TaskData:
    """Keep the images of some classes, in the order given, then at most so many of each split.

    Args:
        data: all of them, not limited yet.
        classes: names of at least two of the data's classes.
        limits: images to use at most of each split, chosen class by class.
        seed: decides which.

    Returns:
        The smaller task; its source names the classes.

    Raises:
        ConfigError: the smaller task does not pass the check of every task.
        UnknownName: the data has no class of one of the names.
    """
    for name in classes:
        if name not in data.classes:
            raise UnknownName(f"class of {data.source}", name, data.classes)
    place = torch.full((len(data.classes),), -1, dtype=torch.int64)
    for new, name in enumerate(classes):
        place[data.classes.index(name)] = new
    train, val, test = (
        _taken(data.split(name), place, limits.of(name), generator(seed, "classes", name))
        for name in SPLITS
    )
    source = f"{data.source}?classes={','.join(classes)}"
    few = TaskData(
        classes=tuple(classes), train=train, val=val, test=test, source=source, notes=data.notes
    )
    return check_task(few, allow_shared=True)  # what may be shared was said of the whole


def _taken(
    split: Split, place: torch.Tensor, limit: int | None, random: np.random.Generator
) -> Split:
    labels = place[split.labels]
    rows = torch.nonzero(labels >= 0).flatten()
    chosen = choose(labels[rows].numpy(), limit, random)
    rows = rows[torch.from_numpy(chosen)]
    return Split(images=split.images[rows], labels=labels[rows])
