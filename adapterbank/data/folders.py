"""Folders of class folders: which files belong to which split, and their pixels."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from adapterbank.config.bank import Limits
from adapterbank.data.base import SPLITS
from adapterbank.data.images import SUFFIXES, load_pixels
from adapterbank.data.selection import Rows, Selection
from adapterbank.data.splits import choose, generator, partition
from adapterbank.errors import ConfigError, InputError
from adapterbank.records import InputSpec

# Names of split folders, by split; the first that exists counts.
_NAMES = {
    "train": ("train", "train800", "training"),
    "val": ("val", "valid", "validation", "val200"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    label: int


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What a scan chose, before anything is decoded."""

    path: Path
    classes: tuple[str, ...]  # names of the class folders, sorted
    files: dict[str, tuple[_File, ...]]  # of each split, sorted by path
    notes: tuple[str, ...]  # what was left out or done on the way


def scan(path: Path, *, limits: Limits, seed: int) -> Folder:
    """Find the images of a folder and choose which to use, without decoding any.

    With a ``train`` folder (or ``train800``, ``training``) the given splits are kept, and a
    missing validation split is taken from a fifth of train. Without one, every sub-folder is a
    class, and 60 : 20 : 20 are train, val and test. Of what is divided, exact copies of a file are
    used once.

    Args:
        path: the folder.
        limits: images to use at most of each split.
        seed: decides what stands where.

    Raises:
        InputError: no such folder.
        ConfigError: it is not laid out as above; every problem is named.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder, expected one with a sub-folder for each class")
    given = {
        split: folder
        for split, names in _NAMES.items()
        for folder in [next((path / name for name in names if (path / name).is_dir()), None)]
        if folder is not None
    }
    pools, classes, notes = _given(path, given) if "train" in given else _ungiven(path)
    files: dict[str, tuple[_File, ...]] = {}
    if "test" not in pools:
        pools, note = _divide(pools["train"], ("train", "test", "val"), (3, 1, 1), seed)
        notes.append(note)
    elif "val" not in pools:
        unique = _without_copies(pools["train"], notes)
        divided, note = _divide(unique, ("train", "val"), (4, 1), seed)
        pools |= divided
        notes.append(note)
    for split in SPLITS:
        pool = pools[split]
        labels = [file.label for file in pool]
        rows = choose(labels, limits.of(split), generator(seed, "limit", split))
        files[split] = tuple(pool[row] for row in rows)
    return Folder(path=path, classes=classes, files=files, notes=tuple(notes))


def select(folder: Folder, spec: InputSpec) -> Selection:
    """Select the chosen files of a folder, to be squashed to the size of ``spec``."""

    def rows(files: tuple[_File, ...]) -> Rows:
        labels = torch.tensor([file.label for file in files], dtype=torch.int64)
        return Rows(labels=labels, read=lambda row: load_pixels(files[row].path, spec))

    return Selection(
        classes=folder.classes,
        splits={split: rows(folder.files[split]) for split in SPLITS},
        source=str(folder.path),
        notes="; ".join(folder.notes),
    )


def _given(
    path: Path, folders: dict[str, Path]
) -> tuple[dict[str, list[_File]], tuple[str, ...], list[str]]:
    """Read splits that stand in folders of their own."""
    problems = []
    if "test" not in folders:
        problems.append(f"{folders['train'].name}/ but no test/: add it, or remove the level")
    classes = _class_names(folders["train"])
    problems += [
        f"{folder.name}/: classes that {folders['train'].name}/ lacks: {', '.join(strange)}"
        for folder in folders.values()
        if (strange := sorted(set(_class_names(folder)) - set(classes)))
    ]
    pools = {split: list(_files(folder, classes)) for split, folder in folders.items()}
    problems += _empty_classes(pools["train"], classes, folders["train"])
    if problems:
        raise ConfigError(str(path), problems)
    return pools, classes, []


def _ungiven(path: Path) -> tuple[dict[str, list[_File]], tuple[str, ...], list[str]]:
    """Read a folder whose sub-folders are the classes; copies would straddle the splits."""
    classes = _class_names(path)
    files = list(_files(path, classes))
    problems = _empty_classes(files, classes, path)
    if len(classes) < 2:
        problems.insert(0, f"{len(classes)} class folders, expected at least 2")
    if problems:
        raise ConfigError(str(path), problems)
    notes: list[str] = []
    return {"train": _without_copies(files, notes)}, classes, notes


def _divide(
    files: list[_File], names: tuple[str, ...], shares: tuple[int, ...], seed: int
) -> tuple[dict[str, list[_File]], str]:
    """Divide files class by class; the first name gets what rounding leaves."""
    sizes = [max(1, len(files) * share // sum(shares)) for share in shares[1:]]
    counts = (max(0, len(files) - sum(sizes)), *sizes)
    parts = partition([file.label for file in files], counts, generator(seed, "divide", *names))
    pools = {name: [files[row] for row in part] for name, part in zip(names, parts, strict=True)}
    percents = " : ".join(str(100 * share // sum(shares)) for share in shares)
    return pools, f"{', '.join(names)} divided {percents} by seed {seed}"


def _class_names(folder: Path) -> tuple[str, ...]:
    names = (entry.name for entry in folder.iterdir() if entry.is_dir())
    return tuple(sorted(name for name in names if not name.startswith(".")))


def _files(folder: Path, classes: tuple[str, ...]) -> Iterable[_File]:
    """List image files in a fixed order: by class, then by path, whatever the file system."""
    for label, name in enumerate(classes):
        for path in sorted((folder / name).rglob("*"), key=Path.as_posix):
            hidden = path.name.startswith(".")
            if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
                yield _File(path=path, label=label)


def _empty_classes(files: list[_File], classes: tuple[str, ...], folder: Path) -> list[str]:
    labels = {file.label for file in files}
    empty = (name for label, name in enumerate(classes) if label not in labels)
    return [f"{folder.name}/{name}: no image files" for name in empty]


def _without_copies(files: list[_File], notes: list[str]) -> list[_File]:
    """Keep the first of each set of files with the same bytes, and note how many were not.

    Only files of equal size are read and hashed.
    """
    by_size: defaultdict[int, list[_File]] = defaultdict(list)
    for file in files:
        by_size[file.path.stat().st_size].append(file)
    dropped: set[Path] = set()
    for size, same in by_size.items():
        seen: set[bytes] = set()
        for file in same if size and len(same) > 1 else ():
            digest = hashlib.blake2b(file.path.read_bytes(), digest_size=16).digest()
            if digest in seen:
                dropped.add(file.path)
            seen.add(digest)
    if dropped:
        notes.append(f"exact copies left out: {len(dropped)}")
    return [file for file in files if file.path not in dropped]
