"""Which images stand in which split: stratified, seeded, the same on every machine.

Every choice depends only on the labels in their (sorted) order and a seed, never on the order in
which a file system lists files or on how many threads decode them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return the random stream that belongs to a seed and a name.

    Streams of different names are independent, so a task's test split does not move when its
    train split is asked for more images.

    Args:
        seed: any non-negative integer.
        names: what the stream is for, for example a task and a split.
    """
    key = hashlib.sha256("/".join(names).encode()).digest()[:16]
    entropy = (seed, int.from_bytes(key, "big"))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def choose(
    labels: Sequence[int] | Indices, count: int | None, random: np.random.Generator
) -> Indices:
    """Choose ``count`` images so that classes keep their proportions, to within one image.

    Every class keeps an image as long as ``count`` reaches the number of classes, and with the
    same stream a smaller choice is part of a larger one, so budgets can be compared.

    Args:
        labels: (B,) class of each image.
        count: how many to choose; ``None`` or more than there are means all.
        random: the stream that makes the choice.

    Returns:
        Sorted indices into ``labels``.
    """
    classes = np.asarray(labels, dtype=np.int64)
    shuffled = random.permutation(len(classes))
    # The k-th of n images of a class stands at (k + 1/2) / n of the way, its first before all:
    # cutting the line anywhere leaves every class about the same fraction.
    place = np.empty(len(classes))
    for label in np.unique(classes):
        rows = shuffled[classes[shuffled] == label]
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
        place[rows[0]] = -1.0
    order = shuffled[np.argsort(place[shuffled], kind="stable")]
    return np.sort(order[:count])


def partition(
    labels: Sequence[int] | Indices, counts: Sequence[int], random: np.random.Generator
) -> tuple[Indices, ...]:
    """Divide images into disjoint parts of exactly these sizes, each class in proportion.

    Parts are chosen one after the other (see :func:`choose`), so a class too small for all of
    them is in the first ones: put train first.

    Args:
        labels: (B,) class of each image.
        counts: the size of each part; the last ones are smaller if images run out.
        random: the stream that makes the choice.

    Returns:
        Sorted indices of each part.
    """
    classes = np.asarray(labels, dtype=np.int64)
    rest = np.arange(len(classes), dtype=np.int64)
    parts = []
    for count in counts:
        part = rest[choose(classes[rest], count, random)]
        parts.append(part)
        rest = np.setdiff1d(rest, part, assume_unique=True)
    return tuple(parts)


def vtab(labels: Sequence[int] | Indices, random: np.random.Generator) -> tuple[Indices, Indices]:
    """Choose VTAB-1k's 800 and 200 images from a training set, class by class.

    Smaller sets are divided in the same ratio.

    Args:
        labels: (B,) class of each image of the published training split.
        random: the stream that makes the choice.

    Returns:
        Sorted indices of the train and of the val images; they are disjoint.
    """
    total = min(1000, len(labels))
    train, val = partition(labels, (total - total // 5, total // 5), random)
    return train, val
