"""The images of a folder that a task uses, and the split of each.

All are decoded once before any is stored: an image is placed by its pixels, and copies and images
that cannot be decoded are found. Of an image only a digest is kept meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from adapterbank.config.bank import Limits
from adapterbank.data.base import SPLITS, pixel_digest
from adapterbank.data.batches import TOGETHER, Progress, in_batches
from adapterbank.data.images import load_pixels
from adapterbank.data.left_out import Tally
from adapterbank.data.scan import ImageFile, Scan
from adapterbank.data.selection import Rows, Selection, refuse_unreadable
from adapterbank.data.splits import choose_first, place, position
from adapterbank.errors import ImageError
from adapterbank.records import InputSpec

# Of an image in several splits, the first of these keeps it.
_KEEPING = {"test": ("train", "val", "test"), "train": ("test", "val", "train")}


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What to do about images that would otherwise be refused."""

    skip_unreadable: bool = False  # go on without images that cannot be decoded
    # From which side to drop images that are in two given splits: of test and train, test and val,
    # val and train. None refuses them.
    drop_copies: Literal["train", "test"] | None = None
    report: Path | None = None  # where to name all images that cannot be decoded


@dataclass(frozen=True, kw_only=True, slots=True)
class _Image:
    file: ImageFile
    position: float  # decides its place, and when limits take it
    digest: bytes = b""  # of its pixels, once decoded


def select(
    scan: Scan,
    spec: InputSpec,
    *,
    limits: Limits,
    seed: int,
    choices: Choices,
    progress: Progress | None = None,
) -> Selection:
    """Select the images of a folder, to be squashed to the size of ``spec``.

    Given splits are kept, and a missing validation split is taken from a fifth of train. Where none
    is given, 60 : 20 : 20 are train, test and val. Of what is divided so, copies are used once.

    Args:
        scan: of the folder.
        spec: size and interpolation.
        limits: images to use at most of each split: the same ones, mostly, whatever is added. Of a
            split that is given they are chosen by name, and only they are decoded.
        seed: decides which, and what stands where.
        choices: what to do about images that would be refused.
        progress: told of the images.

    Raises:
        InputError: images cannot be decoded and are not to be skipped; all are named.
    """
    tally, notes = Tally(scan.left_out), list[str]()
    divided = "val" not in scan.pools
    named = {
        split: [_Image(file=file, position=position(file.name.encode(), seed)) for file in pool]
        for split, pool in scan.pools.items()
    }
    used = {
        split: pool if divided and split == "train" else _limited(pool, limits.of(split))
        for split, pool in named.items()
    }
    images, errors = _decoded(scan.path, used, spec, progress)
    if errors and not choices.skip_unreadable:
        refuse_unreadable(str(scan.path), list(errors.values()), choices.report)
    for name in errors:
        tally.add("cannot be decoded", name)
    if divided:
        shares = {"train": 4, "val": 1} if "test" in images else {"train": 3, "test": 1, "val": 1}
        images |= _divided(images["train"], shares, seed, tally)
        percents = " : ".join(str(100 * share // sum(shares.values())) for share in shares.values())
        notes.append(f"{', '.join(shares)} divided about {percents} by pixels and seed {seed}")
    dropped = _drop_copies(images, choices.drop_copies, tally)
    changes = {"skipped_unreadable": len(errors), "dropped_copies": dropped}
    notes += [f"{name.replace('_', ' ')}: {number}" for name, number in changes.items() if number]
    rows = {
        split: _rows(scan.path, _limited(images[split], limits.of(split)), spec) for split in SPLITS
    }
    return Selection(
        classes=scan.classes,
        splits=rows,
        source=str(scan.path),
        notes="; ".join(notes),
        left_out=tally.result(),
        changes=changes,
    )


def _limited(images: Sequence[_Image], limit: int | None) -> list[_Image]:
    order = np.argsort([image.position for image in images], kind="stable")
    chosen = choose_first([image.file.label for image in images], limit, order)
    return [images[row] for row in chosen]


def _decoded(
    root: Path,
    pools: Mapping[str, Sequence[_Image]],
    spec: InputSpec,
    progress: Progress | None,
) -> tuple[dict[str, list[_Image]], dict[str, ImageError]]:
    """Hash the pixels of images; of bad ones, return the errors by name."""

    def read(item: tuple[str, _Image]) -> tuple[str, _Image, ImageError | None]:
        split, image = item
        try:
            digest = pixel_digest(load_pixels(root / image.file.name, spec))
        except ImageError as error:
            return split, image, error.alone()
        return split, _Image(file=image.file, position=image.position, digest=digest), None

    items = [(split, image) for split, pool in pools.items() for image in pool]
    images: dict[str, list[_Image]] = {split: [] for split in pools}
    errors: dict[str, ImageError] = {}
    done = 0
    for batch in in_batches(read, items, TOGETHER):
        for split, image, error in batch:
            if error is None:
                images[split].append(image)
            else:
                errors[image.file.name] = error
            done += 1
            if progress is not None:
                progress(done, len(items))
    return images, errors


def _divided(
    images: Sequence[_Image], shares: Mapping[str, int], seed: int, tally: Tally
) -> dict[str, list[_Image]]:
    """Place the images of a split by their pixels; of copies only the first is used."""
    unique: dict[bytes, _Image] = {}
    for image in images:
        first = unique.setdefault(image.digest, image)
        if first is not image:
            same = first.file.label == image.file.label
            tally.add(
                "copies of another image" if same else "copies of an image of another class",
                f"{image.file.name} = {first.file.name}",
            )
    kept = [
        _Image(file=image.file, position=position(digest, seed), digest=digest)
        for digest, image in unique.items()
    ]
    labels = [image.file.label for image in kept]
    placed = place([image.position for image in kept], labels, shares)
    return {split: [kept[row] for row in rows] for split, rows in placed.items()}


def _drop_copies(
    images: dict[str, list[_Image]], losing: Literal["train", "test"] | None, tally: Tally
) -> int:
    """Keep each image in one split, as the task chooses; return how many were dropped."""
    if losing is None:
        return 0
    found, dropped = dict[bytes, _Image](), Counter[str]()
    for split in _KEEPING[losing]:
        kept = [image for image in images[split] if image.digest not in found]
        for image in images[split]:
            if image.digest in found:
                pair = f"{image.file.name} = {found[image.digest].file.name}"
                tally.add(f"of {split}, copies of images in another split", pair)
        dropped[split] = len(images[split]) - len(kept)
        found |= {image.digest: image for image in kept}
        images[split] = kept
    return dropped.total()


def _rows(root: Path, images: Sequence[_Image], spec: InputSpec) -> Rows:
    return Rows(
        labels=torch.tensor([image.file.label for image in images], dtype=torch.int64),
        read=lambda row: load_pixels(root / images[row].file.name, spec),
        names=tuple(image.file.name for image in images),
        digests=tuple(image.digest for image in images),
    )
