"""Images to judge versions on: those that none of them has learned from.

What a version states of itself decides nothing but which images are left out; all figures are
measured here. A version that states too little is judged on images that it may have seen, which
nobody can tell from outside; one that states too much gains nothing by it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from adapterbank.data.base import TaskData
from adapterbank.registry.adapter_config import AdapterConfig
from adapterbank.registry.manifest import check_some
from adapterbank.registry.seen import SEEN, parse_seen
from adapterbank.registry.verdicts import ClassChange
from adapterbank.registry.versions import Version


@dataclass(frozen=True, kw_only=True, eq=False)
class Fresh:
    """Images of one split, and which of them are left."""

    split: Literal["val", "test"]
    rows: NDArray[np.bool_]  # (n,) of all images of the split

    @property
    def total(self) -> int:
        """How many are left."""
        return int(self.rows.sum())


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a version learned from, by digest; ``stated`` is whether it names the images itself."""

    digests: frozenset[bytes]
    stated: bool


def learned_images(version: Version, config: AdapterConfig, data: TaskData, digest: str) -> Learned:
    """Tell from which images a version learned.

    Args:
        version: with or without a list of them.
        config: the version's.
        data: the images that are prepared now.
        digest: of them.

    Returns:
        What its list says, and the validation images where its configuration says that it was
        fitted to those which are prepared now, or that a search chose by them. Prepared splits have
        no image in common, so that training images need no word where there is no list.

    Raises:
        IntegrityError: the list is not what was published, or none.
    """
    files, _ = check_some(version.path, version.digest, (SEEN,))
    stated = SEEN in files
    seen = parse_seen(files[SEEN], where=f"{version}/{SEEN}") if stated else frozenset()
    by_val = config.train.get("fit") == "train+val" or "search" in config.train
    if by_val and config.data.digest == digest:
        seen |= frozenset(data.val.digests)
    return Learned(digests=seen, stated=stated)


def fresh_images(
    data: TaskData, challenger: Learned, champions: Collection[Learned], least: int
) -> tuple[Fresh, ...]:
    """Find validation images that no version has learned from, or else such test images.

    Whoever says that it learned from just the images it gets wrong would be judged on all others.
    So it is also asked about those that no champion has learned from, whatever it says of itself:
    a version that has really learned from some of them is only the better there.

    Args:
        data: the images that are prepared now.
        challenger: of the version that is judged.
        champions: of those it is compared with.
        least: images that are enough.

    Returns:
        First the images to judge on: of the first split that has enough, or of the one that has
        most. Then the images on which it has to be no worse either, of that split and those before,
        where these are others and enough.
    """
    served = frozenset[bytes]().union(*(version.digests for version in champions))
    found: list[Fresh] = []
    others: list[Fresh] = []
    splits: tuple[Literal["val", "test"], ...] = ("val", "test")
    for split in splits:
        digests = data.split(split).digests
        unserved = np.array([d not in served for d in digests], dtype=bool)
        unseen = unserved & np.array([d not in challenger.digests for d in digests], dtype=bool)
        found.append(Fresh(split=split, rows=unseen))
        if unseen.sum() < unserved.sum() >= least:
            others.append(Fresh(split=split, rows=unserved))
        if found[-1].total >= least:
            break
    enough = found[-1] if found[-1].total >= least else max(found, key=lambda one: one.total)
    return enough, *others


def class_change(
    before: Collection[str],
    now: Collection[str],
    truth: Collection[str] = (),
    answers: Collection[str] = (),
) -> ClassChange | None:
    """Tell what became of the classes of a champion; None where they are the same.

    Args:
        before: the champion's.
        now: the challenger's, in any order.
        truth: the true class of each of some images.
        answers: what the champion calls them.
    """
    # Dictionaries keep the order, and find a name among 100,000 at once.
    known, named = set(before), set(now)
    added = dict.fromkeys(name for name in now if name not in known)
    removed = dict.fromkeys(name for name in before if name not in named)
    if not added and not removed:
        return None
    called = defaultdict[str, Counter[str]](Counter)
    for true, answer in zip(truth, answers, strict=True):
        called[true][answer] += 1
    renamed = []
    for name in tuple(added):
        old, count = max(called[name].items(), key=lambda item: item[1], default=("", 0))
        if old in removed and 2 * count > called[name].total():
            renamed.append((old, name))
            del added[name], removed[old]
    return ClassChange(added=tuple(added), removed=tuple(removed), renamed=tuple(renamed))
