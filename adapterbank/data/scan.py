"""Folders of class folders: which are splits, which are classes, and which files are images.

Whatever is not used is counted by reason, so that nothing is left out without a word. What could
be meant in two ways is refused with a sentence.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapterbank.data.base import SPLITS
from adapterbank.data.images import SUFFIXES
from adapterbank.data.left_out import LeftOut, Tally, sentences
from adapterbank.errors import ConfigError, InputError, UnknownName
from adapterbank.records import check_utf8

# Each name can be read in one way only, or a long one would be tried in very many: "dataset" is
# "data" and "set".
_BESIDE = r"(?:seg|sets?|data|images?|imgs?|pics?|pictures?|photos?|split|[\W\d_])*"
_TRAIN = r"train(?:ing)?|trn"
_VAL = r"val(?:id(?:at(?:e|ion))?)?|dev(?:el(?:opment)?)?"
_TEST = r"test(?:ing|s)?|tst"
# Names of split folders: Train, train800, seg_train, validation, TestSet…
_SPLIT = re.compile(rf"{_BESIDE}(?:(?P<train>{_TRAIN})|(?P<val>{_VAL})|(?P<test>{_TEST})){_BESIDE}")
# Names that tell of a split, and not of which one alone: train_val, cats_test, eval, holdout.
_LIKE_SPLIT = re.compile(
    rf"(?<![^\W\d_])(?:trainval|{_TRAIN}|{_VAL}|{_TEST}|evaluation|eval|hold_?out)(?![^\W\d_])"
)

# What systems and programs leave in folders, besides names that begin with a dot.
_HIDDEN = frozenset({"__MACOSX", "@eaDir", "__pycache__", "$RECYCLE.BIN"})
_HEIC = frozenset({".heic", ".heif", ".hif"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFile:
    """One file that is used as an image."""

    name: str  # within the folder that was scanned
    label: int  # index into the classes


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a scan found, before anything is decoded."""

    path: Path
    classes: tuple[str, ...]
    # Sorted by class and name; of each split that has a folder, or all of them as train's.
    pools: Mapping[str, tuple[ImageFile, ...]]
    left_out: tuple[LeftOut, ...]


def scan(path: Path, classes: Sequence[str] | None = None) -> Scan:
    """Find the images of a folder: train, val and test above the classes, or classes alone.

    Folders named like a split in any case and common spelling are splits where they hold folders;
    where they hold images at once they are classes like the others.

    Args:
        path: the folder.
        classes: those wanted, in this order; None: all, sorted.

    Raises:
        ConfigError: it is not laid out so, or could be meant in two ways; every problem is named.
        InputError: no such folder, or names in it are not UTF-8.
        UnknownName: there is no class of one of the names.
    """
    check_utf8(str(path))
    try:
        missing = "" if path.is_dir() else "not a folder" if path.exists() else "no such folder"
    except OSError as error:  # such as a name too long
        missing = str(error.strerror)
    if missing:
        raise InputError(f"{path}: {missing}, expected one with a sub-folder for each class")
    tally = Tally()
    splits, problems = _splits(path, tally)
    if problems and "train" not in splits:
        raise ConfigError(str(path), problems)
    top = splits.get("train", path)
    known = _class_names(top)
    for name in classes or ():
        if name not in known:
            raise UnknownName(f"class of {path}", name, known)
    problems += [
        f"{folder.name}/: classes that {top.name}/ lacks: {', '.join(strange)}"
        for folder in splits.values()
        if (strange := sorted(set(_class_names(folder)) - set(known)))
    ]
    wanted = known if classes is None else tuple(classes)
    pools = {
        split: tuple(_files(folder, path, wanted, tally))
        for split, folder in (splits or {"train": path}).items()
    }
    filled = {file.label for file in pools["train"]}
    empty = [name for label, name in enumerate(wanted) if label not in filled]
    problems += [f"{top.name}/{name}: no image files" for name in empty]
    if len(wanted) < 2:
        problems.insert(0, f"{len(wanted)} class folders, expected at least 2")
    if problems:
        problems += sentences(tally.result())
        endings = ", ".join(sorted(SUFFIXES))
        fix = f"delete the empty class folders, or put images into them ({endings})"
        raise ConfigError(str(path), problems, fix=fix if empty else None)
    return Scan(path=path, classes=wanted, pools=pools, left_out=tally.result())


def _splits(path: Path, tally: Tally) -> tuple[dict[str, Path], list[str]]:
    """Find the folders of the splits; none where the folder is of classes alone.

    Returns:
        The folder of each split, and what is wrong: what could mean two things, or is missing.
    """
    folders = [path / name for name in _class_names(path)]
    named = {folder: split for folder in folders if (split := _split_of(folder.name)) is not None}
    above = [folder for folder in folders if _class_names(folder)]
    given = [folder for folder in named if folder in above]
    problems = [
        f"{folder.name}/: is it a split? Name it train, val or test, or otherwise if it is a class"
        for folder in above
        if folder not in named and _LIKE_SPLIT.search(folder.name.casefold())
        and not _holds_images(folder)
    ]  # fmt: skip
    if not given:
        problems += [
            f"{folder.name}/{_class_names(folder)[0]}/: a split below {folder.name}/: name the"
            " folder that holds train, val and test, with the classes below these"
            for folder in above
            if all(_split_of(name) for name in _class_names(folder))
        ]
        if folders and len(named) == len(folders):
            problems.append(
                f"{', '.join(folder.name for folder in folders)}: no class folders below these"
                " splits, so nothing says of which class an image is"
            )
        return {}, problems
    splits: dict[str, Path] = {}
    for folder, split in named.items():
        if folder not in given:
            problems.append(f"{folder.name}/: no class folders, expected those of the other splits")
        elif split in splits:
            problems.append(
                f"{splits[split].name}/ and {folder.name}/ both mean {split}: keep one of them"
            )
        splits.setdefault(split, folder)
    problems += [
        f"{', '.join(f'{folder.name}/' for folder in given)} but no {split}/: add it, or remove"
        " the level"
        for split in ("train", "test")
        if split not in splits
    ]
    for folder in folders:
        if folder not in named:
            tally.add("in a folder beside the splits", f"{folder.name}/", _number_of_files(folder))
    _count_loose(path, path, tally)
    return {split: splits[split] for split in SPLITS if split in splits}, problems


def _split_of(name: str) -> str | None:
    found = _SPLIT.fullmatch(name.casefold())
    return None if found is None else found.lastgroup


def is_hidden(name: str) -> bool:
    """Whether a file or folder of such a name is left where it is."""
    return name.startswith(".") or name in _HIDDEN


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in _entries(folder) if _is_folder(entry))
    visible = tuple(name for name in names if not is_hidden(name))
    for name in visible:
        check_utf8(str(folder / name))
    return visible


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """List a folder; one that may not be read is empty, and counted where its images are."""
    try:
        return list(os.scandir(folder))
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a folder that may be listed and not entered
        return False


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:
        return False


def _holds_images(folder: Path) -> bool:
    return any(_reason(Path(entry.path)) is None for entry in _entries(folder))


def _files(top: Path, root: Path, classes: Sequence[str], tally: Tally) -> Iterator[ImageFile]:
    """List image files in a fixed order, by class, then by path, whatever the file system."""
    _count_loose(top, root, tally)
    present = set(_class_names(top))
    for label, name in enumerate(classes):
        if name in present:
            for path in sorted(_images(top / name, root, tally), key=Path.as_posix):
                yield ImageFile(name=_within(path, root), label=label)


def _images(folder: Path, root: Path, tally: Tally) -> Iterator[Path]:
    """List the image files of a folder and of all below, and count what is left out."""

    def refused(error: OSError) -> None:
        tally.add("in a folder that may not be read", f"{_within(Path(error.filename), root)}/")

    for parent, folders, names in os.walk(folder, onerror=refused):
        for name in list(folders):
            path = Path(parent, name)
            check_utf8(str(path))
            if is_hidden(name):
                tally.add("hidden", f"{_within(path, root)}/", _number_of_files(path))
                folders.remove(name)
            elif _is_link(path):
                tally.add("links to folders, which are not followed", _within(path, root))
        for name in names:
            path = Path(parent, name)
            check_utf8(str(path))
            reason = _reason(path)
            if reason is None:
                yield path
            else:
                tally.add(reason, _within(path, root))


def _count_loose(folder: Path, root: Path, tally: Tally) -> None:
    """Count the files that stand above the classes."""
    for entry in _entries(folder):
        if not _is_folder(entry):
            check_utf8(entry.path)
            tally.add(
                "hidden" if is_hidden(entry.name) else "loose, in no class folder",
                _within(Path(entry.path), root),
            )
        elif is_hidden(entry.name):
            number = _number_of_files(Path(entry.path))
            tally.add("hidden", f"{_within(Path(entry.path), root)}/", number)


def _reason(path: Path) -> str | None:
    """Say why a file is left out; None where it is an image by its name."""
    by_name = reason_by_name(path.name)
    if by_name is not None:
        return by_name
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return "files that may not be read"
    except OSError:
        return "links to what is not there"
    if not stat.S_ISREG(mode):
        return "neither a file nor a folder"
    return None if os.access(path, os.R_OK) else "files that may not be read"


def reason_by_name(name: str) -> str | None:
    """Say why a file of such a name is no image of a folder; None where it is one."""
    ending = Path(name).suffix.lower()
    if is_hidden(name):
        return "hidden"
    if ending in _HEIC:
        return "HEIC, which cannot be decoded: convert them to JPEG or PNG"
    if not ending:
        return "without an ending"
    return None if ending in SUFFIXES else f"with the ending {ending}, which is no image's"


def _number_of_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _within(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
