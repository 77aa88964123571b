"""The images of a task, selected and not decoded yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import torch

from adapterbank import durable
from adapterbank.data.base import label_problems
from adapterbank.data.left_out import LeftOut
from adapterbank.errors import ConfigError, FetchError, ImageError, InputError
from adapterbank.text import count

_ERRORS = 20  # listed in one message; the rest is counted
_PAIRS = 3  # of copies that are named
# (split, split) -> what images of the first that are also in the second would spoil.
_SPOILED = {
    ("test", "train"): "the test figure would be too good",
    ("test", "val"): "choices would be made on test images",
    ("val", "train"): "the validation figure would be too good",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """The selected images of one split."""

    labels: torch.Tensor  # (B,) int64, indices into the task's classes
    # Gives the pixels (3, H, W) uint8 of a row, in any thread; may raise ImageError.
    read: Callable[[int], torch.Tensor]
    names: Sequence[str] = ()  # of files, where they are files
    digests: Sequence[bytes] | None = None  # of their pixels, where those were decoded before


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """All of a task but its pixels."""

    classes: tuple[str, ...]  # names; a label is an index into them
    splits: Mapping[str, Rows]
    source: str  # the URI it was built from
    notes: str = ""  # one line on what was done on the way
    left_out: tuple[LeftOut, ...] = ()  # files of the folder that are not used
    changes: Mapping[str, int] = field(default_factory=dict)  # images less than the source has
    may_share: bool = False  # images may be in two splits, as in published sets; they are noted
    download: Path | None = None  # the folder they were downloaded to

    def check(self) -> None:
        """Refuse what would train nothing or report nothing, before anything is decoded.

        Raises:
            ConfigError: naming every problem: fewer than two classes, repeated names, empty splits,
                labels out of range, classes without a training image.
        """
        labels = {name: rows.labels.tolist() for name, rows in self.splits.items()}
        problems = label_problems(self.classes, labels)
        if problems:
            raise ConfigError(self.source, problems)

    def check_decoded(
        self, digests: Mapping[str, Sequence[bytes]], errors: Sequence[ImageError]
    ) -> str:
        """Refuse what decoding found wrong, or note it.

        Args:
            digests: of the images of each split.
            errors: of the images that could not be decoded.

        Returns:
            The notes, with the numbers of images that are in two splits.

        Raises:
            ConfigError: images are in two splits, and the source may not have such.
            FetchError: images of a download cannot be decoded.
            InputError: images cannot be decoded, or changed since they were selected.
        """
        if errors and self.download is not None:
            raise FetchError(
                f"{len(errors)} images of the download are damaged, the first: {errors[0]}",
                fix=f"rm -r {self.download}",
            )
        if errors:
            refuse_unreadable(self.source, errors)
        for name, rows in self.splits.items():
            if rows.digests is not None and list(rows.digests) != list(digests[name]):
                raise InputError(
                    f"{self.source}: images changed while they were prepared",
                    fix="repeat the command once nobody writes there",
                )
        problems, notes = [], [self.notes] if self.notes else []
        for (split, other), consequence in _SPOILED.items():
            seen = {digest: row for row, digest in enumerate(digests[other])}
            pairs = [(row, seen[d]) for row, d in enumerate(digests[split]) if d in seen]
            if pairs:
                notes.append(f"{len(pairs)} {split} images are also in {other}")
                problems.append(
                    f"{len(pairs)} of {len(digests[split])} {split} images are also in {other},"
                    f" pixel for pixel: {consequence}{self._named(split, other, pairs)}"
                )
        if problems and not self.may_share:
            raise ConfigError(
                self.source,
                problems,
                fix="delete the copies, or let one side lose them: task add with --drop-copies test"
                " or train, or drop_copies: of the task in pipelines/params.yaml",
            )
        return "; ".join(notes)

    def _named(self, split: str, other: str, pairs: Sequence[tuple[int, int]]) -> str:
        names, others = self.splits[split].names, self.splits[other].names
        listed = [f"{names[row]} = {others[twin]}" for row, twin in pairs[:_PAIRS] if names]
        more = len(pairs) - len(listed)
        return f": {', '.join(listed)}{f' and {more} more' if more else ''}" if listed else ""


def refuse_unreadable(
    source: str, errors: Sequence[ImageError], report: Path | None = None
) -> NoReturn:
    """Refuse a source of which images cannot be decoded.

    Args:
        source: what they are of.
        errors: what is wrong with each.
        report: a file that then names all of them.

    Raises:
        InputError: naming the first ones.
    """
    lines = [f"  - {error.path}: {error.reason}" for error in errors]
    text = f"{source}: {count(len(errors), 'image')} cannot be decoded"
    if len(lines) > _ERRORS:
        if report is not None:
            durable.make_directory(report.parent)
            durable.replace_file(report, "\n".join([text, *lines, ""]).encode())
        where = "" if report is None else f"; all are named in {report}"
        lines = [*lines[:_ERRORS], f"  and {len(lines) - _ERRORS} more{where}"]
    raise InputError(
        text,
        more=lines,
        fix="mend or delete them, or go on without them: task add with --skip-unreadable, or"
        " skip_unreadable: true of the task in pipelines/params.yaml",
    )
