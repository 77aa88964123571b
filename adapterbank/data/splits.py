"""Which images stand in which split: seeded, the same on every machine.

Images of a folder are placed one by one, by a hash of what they are, so that others may come
without moving them. Those of a published set, which does not grow, are chosen by their numbers.
Nothing depends on the order in which a file system lists files or on how many threads decode them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

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
    return choose_first(labels, count, random.permutation(len(labels)))


def choose_first(labels: Sequence[int] | Indices, count: int | None, shuffled: Indices) -> Indices:
    """Choose ``count`` images like :func:`choose`, in the order of the indices ``shuffled``."""
    classes = np.asarray(labels, dtype=np.int64)
    # The k-th of n images of a class stands at (k + 1/2) / n of the way, its first before all:
    # cutting the line anywhere leaves every class about the same fraction.
    place = np.empty(len(classes))
    for label in np.unique(classes):
        rows = shuffled[classes[shuffled] == label]
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
        place[rows[0]] = -1.0
    order = shuffled[np.argsort(place[shuffled], kind="stable")]
    return np.sort(order[:count])


def position(content: bytes, seed: int) -> float:
    """Return where in [0, 1) some content stands, which only it and the seed decide."""
    digest = hashlib.blake2b(content, digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big") / 2**64 % 1.0


def place(
    positions: Sequence[float], labels: Sequence[int], shares: Mapping[str, int]
) -> dict[str, Indices]:
    """Place images in splits by where in [0, 1) each stands, whatever others there are.

    What grows moves nothing: a split of a larger set has all that it had. Counts follow the shares
    as drawn lots do. Only where a split would lack a class, the image that stands nearest to it is
    moved there: each class has an image in the first split, and, where it has at least as many
    images as there are splits, in every one. An image moved so may go back when its class grows.

    Args:
        positions: of each image, see :func:`position`.
        labels: class of each image.
        shares: of each split, in the order in which they divide [0, 1).

    Returns:
        Sorted indices of the images of each split.
    """
    spots, classes = np.asarray(positions), np.asarray(labels, dtype=np.int64)
    ends = np.cumsum(list(shares.values())) / sum(shares.values())
    starts = np.concatenate([[0.0], ends[:-1]])
    splits = np.searchsorted(ends, spots, side="right").astype(np.int64)

    def fill(split: int, rows: Indices) -> None:
        """Move the nearest of these images into a split that has none of them."""
        inside = np.bincount(splits[rows], minlength=len(ends))
        spare = rows[inside[splits[rows]] > 1]
        rows = spare if split or len(spare) else rows  # train alone may take another's last
        if inside[split] == 0 and len(rows):
            away = np.maximum(starts[split] - spots[rows], spots[rows] - ends[split])
            splits[rows[np.argmin(away)]] = split

    for label in np.unique(classes):
        rows = np.flatnonzero(classes == label)
        for split in range(len(ends) if len(rows) >= len(ends) else 1):
            fill(split, rows)
    for split in range(1, len(ends)):  # of tiny classes alone, some split may have none at all
        trained = np.bincount(classes[splits == 0], minlength=classes.max(initial=0) + 1)
        fill(split, np.flatnonzero((splits != 0) | (trained[classes] > 1)))
    return {name: np.flatnonzero(splits == split) for split, name in enumerate(shares)}


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
