"""Published data sets by their torchvision name, cut down by the VTAB-1k rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from PIL import Image
from torchvision import datasets

from adapterbank.config.bank import Limits
from adapterbank.data.images import to_pixels
from adapterbank.data.selection import Rows, Selection
from adapterbank.data.splits import Indices, choose, generator, partition, vtab
from adapterbank.errors import FetchError, ImageError, UnknownName
from adapterbank.records import InputSpec


class _Dataset(Protocol):
    def __getitem__(self, index: int) -> tuple[Image.Image, int]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class _Published:
    """Where one class of ``torchvision.datasets`` keeps labels, and arguments of its splits."""

    labels: str  # the attribute that lists all labels, so that none is decoded to be chosen
    train: Mapping[str, object] = field(default_factory=lambda: {"split": "train"})
    # None: it has no split to report, and a fifth is held out.
    test: Mapping[str, object] | None = field(default_factory=lambda: {"split": "test"})


_BOOLEAN = _Published(labels="targets", train={"train": True}, test={"train": False})
_TRAINVAL = {"split": "trainval"}

_KNOWN: Mapping[str, _Published] = {
    "CIFAR10": _BOOLEAN,
    "CIFAR100": _BOOLEAN,
    "Caltech101": _Published(labels="y", train={}, test=None),
    "DTD": _Published(labels="_labels"),
    "EuroSAT": _Published(labels="targets", train={}, test=None),
    "FGVCAircraft": _Published(labels="_labels", train=_TRAINVAL),
    "FashionMNIST": _BOOLEAN,
    "Flowers102": _Published(labels="_labels"),
    "Food101": _Published(labels="_labels"),
    "KMNIST": _BOOLEAN,
    "MNIST": _BOOLEAN,
    "OxfordIIITPet": _Published(labels="_labels", train=_TRAINVAL),
    "STL10": _Published(labels="labels"),
    "SVHN": _Published(labels="labels"),
    "USPS": _BOOLEAN,
}

NAMES = tuple(_KNOWN)
"""Names that ``torchvision://`` accepts."""

# torchvision has no exception of its own: a wrong checksum is a RuntimeError, a dead link any of
# the network's, a damaged archive an OSError or what the decompressor raises.
_DOWNLOAD_ERRORS = (RuntimeError, OSError, EOFError, HTTPException)


def select(name: str, spec: InputSpec, limits: Limits, seed: int, directory: Path) -> Selection:
    """Select images of a published set, downloading it the first time.

    VTAB-1k's rule: at most 800 and 200 images of the training split, chosen class by class, and
    the whole test split. Sets without a test split hold out a fifth, the same for every seed.

    Args:
        name: one of :data:`NAMES`.
        spec: what the images are squashed to.
        limits: images to use at most of each split, within the rule.
        seed: decides which training images are chosen.
        directory: where downloads are kept, a folder for each set.

    Raises:
        UnknownName: torchvision's set of that name is not among those known here.
        FetchError: the set is not in ``directory`` and cannot be downloaded, or is damaged there.
    """
    if name not in _KNOWN:
        raise UnknownName("torchvision data set", name, _KNOWN)
    published = _KNOWN[name]
    train_set = _open(name, published.train, directory / name)
    labels = _labels(train_set, published)
    rows = np.arange(len(labels))
    if published.test is None:
        test_set, test_labels = train_set, labels
        fifth = len(labels) // 5
        rows, test_rows = partition(labels, (len(labels) - fifth, fifth), generator(0, name))
    else:
        test_set = _open(name, published.test, directory / name)
        test_labels = _labels(test_set, published)
        test_rows = np.arange(len(test_labels))
    train_rows, val_rows = (
        rows[part] for part in vtab(labels[rows], generator(seed, name, "vtab"))
    )
    splits = {}
    for split, dataset, split_labels, pool in (
        ("train", train_set, labels, train_rows),
        ("val", train_set, labels, val_rows),
        ("test", test_set, test_labels, test_rows),
    ):
        kept = pool[choose(split_labels[pool], limits.of(split), generator(seed, name, split))]
        read = partial(_read, name, dataset, kept.tolist(), spec)
        splits[split] = Rows(labels=torch.from_numpy(split_labels[kept]), read=read)
    return Selection(
        classes=_class_names(train_set, labels),
        splits=splits,
        source=f"torchvision://{name}",
        notes="VTAB-1k rule: 800 and 200 of the training split, all of test",
        may_share=True,  # the published splits are kept, or figures could not be compared
        download=directory / name,
    )


def _open(name: str, arguments: Mapping[str, object], directory: Path) -> _Dataset:
    directory.mkdir(parents=True, exist_ok=True)
    try:
        opened = getattr(datasets, name)(directory, download=True, **arguments)
    except _DOWNLOAD_ERRORS as error:
        raise FetchError(
            f"torchvision://{name}: not in {directory} and the download failed: {error}",
            fix=f"put the extracted archive into {directory}, or name a folder of your own: "
            f"adapterbank task add {name.lower()} --data DIR",
        ) from error
    return cast("_Dataset", opened)


def _labels(dataset: _Dataset, published: _Published) -> Indices:
    return np.asarray(getattr(dataset, published.labels), dtype=np.int64)


def _class_names(dataset: _Dataset, labels: Indices) -> tuple[str, ...]:
    """Take the set's own names, or number the classes where it has none (SVHN)."""
    for attribute in ("classes", "categories"):
        names = getattr(dataset, attribute, None)
        if names is not None:
            return tuple(str(name) for name in names)
    return tuple(str(label) for label in range(int(labels.max()) + 1))


def _read(
    name: str, dataset: _Dataset, rows: Sequence[int], spec: InputSpec, row: int
) -> torch.Tensor:
    try:
        return to_pixels(dataset[rows[row]][0], spec)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{name}[{rows[row]}]", str(error)) from error
