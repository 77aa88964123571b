"""The images of a task, selected and not decoded yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from adapterbank.data.base import label_problems
from adapterbank.errors import ConfigError, FetchError, ImageError, InputError

_ERRORS = 20  # listed in one message; the rest is counted
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """All of a task but its pixels."""

    classes: tuple[str, ...]  # names; a label is an index into them
    splits: Mapping[str, Rows]
    source: str  # the URI it was built from
    notes: str = ""  # one line on what was left out or done on the way
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
            InputError: images of a folder cannot be decoded; all are listed with their reasons.
        """
        if errors and self.download is not None:
            raise FetchError(
                f"{len(errors)} images of the download are damaged, the first: {errors[0]}",
                fix=f"rm -r {self.download}",
            )
        if errors:
            lines = [f"  - {error.path}: {error.reason}" for error in errors[:_ERRORS]]
            more = len(errors) - _ERRORS
            lines += [f"  and {more} more"] if more > 0 else []
            raise InputError(f"{self.source}: {len(errors)} images cannot be decoded", more=lines)
        problems, notes = [], [self.notes] if self.notes else []
        for (split, other), consequence in _SPOILED.items():
            seen = set(digests[other])
            count = sum(digest in seen for digest in digests[split])
            if count:
                notes.append(f"{count} {split} images are also in {other}")
                problems.append(
                    f"{count} of {len(digests[split])} {split} images are also in {other}, pixel"
                    f" for pixel: {consequence}; delete the copies from one of them"
                )
        if problems and not self.may_share:
            raise ConfigError(self.source, problems)
        return "; ".join(notes)
