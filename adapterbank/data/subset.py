"""Some classes of a data set as a task of their own, as class-incremental scenarios want it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from adapterbank.config.bank import Limits
from adapterbank.data.base import SPLITS
from adapterbank.data.selection import Rows, Selection
from adapterbank.data.splits import choose, generator
from adapterbank.errors import UnknownName


def take_classes(
    whole: Selection, classes: Sequence[str], *, limits: Limits, seed: int
) -> Selection:
    """Keep the images of some classes, in the order given, then at most so many of each split.

    Args:
        whole: all of them, not limited yet.
        classes: names of at least two of its classes.
        limits: images to use at most of each split, chosen class by class.
        seed: decides which.

    Returns:
        The smaller selection; its source names the classes.

    Raises:
        UnknownName: there is no class of one of the names.
    """
    for name in classes:
        if name not in whole.classes:
            raise UnknownName(f"class of {whole.source}", name, whole.classes)
    place = torch.full((len(whole.classes),), -1, dtype=torch.int64)
    for new, name in enumerate(classes):
        place[whole.classes.index(name)] = new
    splits = {
        name: _taken(whole.splits[name], place, limits.of(name), generator(seed, "classes", name))
        for name in SPLITS
    }
    source = f"{whole.source}?classes={','.join(classes)}"
    return replace(whole, classes=tuple(classes), splits=splits, source=source)


def _taken(
    split: Rows, place: torch.Tensor, limit: int | None, random: np.random.Generator
) -> Rows:
    labels = place[split.labels]
    rows = torch.nonzero(labels >= 0).flatten()
    rows = rows[torch.from_numpy(choose(labels[rows].numpy(), limit, random))]
    kept = rows.tolist()
    return Rows(labels=labels[rows], read=lambda row: split.read(kept[row]))
