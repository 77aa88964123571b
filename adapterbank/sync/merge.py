"""Alias files of two clones: merged by what they say, where Git knows only lines.

Git calls :func:`drive` for them where ``adapterbank init`` or ``pull`` has told it to; elsewhere it
leaves a conflict, which :func:`merge_aliases` resolves.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adapterbank.durable import replace_file
from adapterbank.errors import ConflictError, IntegrityError
from adapterbank.integrations.git import git_add, git_stage, git_unmerged
from adapterbank.records import ROUTER, Side
from adapterbank.registry.merge import Clash, merge_records, split_conflict
from adapterbank.registry.store import Registry
from adapterbank.registry.task_record import Stamp, TaskRecord, dump_record, parse_record
from adapterbank.registry.versions import current_actor, utc_now
from adapterbank.text import is_conflicted

FILES: Final = ("registry/aliases", "registry/router.json")
"""Where alias files are, relative to the bank."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The alias files that were merged, and what somebody has to choose first in the others."""

    names: tuple[str, ...]
    clashes: tuple[Clash, ...]


def merge_aliases(registry: Registry, *, take: Side | None = None) -> Merged:
    """Resolve the conflicts that Git has left in alias files, and tell Git.

    Args:
        registry: of the bank; the bank is the folder above it.
        take: whose aliases count where both clones moved one.

    Raises:
        AdapterBankError: Git cannot be asked.
        IntegrityError: a side is no alias file; nothing of that file was changed.
    """
    root, names, clashes = registry.root.parent, list[str](), list[Clash]()
    unmerged = set(git_unmerged(root, *FILES))
    present = {name: (root / name).read_bytes() for name in _files(root)}
    marked = {name for name, data in present.items() if is_conflicted(data)}
    for name in sorted(unmerged | marked):
        task, data = _task(name), present.get(name, b"")
        base, ours, theirs = (
            git_stage(root, name, stage) if name in unmerged else None for stage in (1, 2, 3)
        )
        if ours is None and theirs is None:
            ours, theirs = split_conflict(data)
        if data and name not in marked and data.strip() != ours:  # somebody has merged it by hand
            record = parse_record(data, task, where=name, name=_inside(name))
            found = tuple[Clash, ...]()
        else:
            record, found = _merge(task, base, ours, theirs, take)
        clashes += found
        if not found:
            registry.put_record(record)
            names.append(name)
            if name in unmerged:
                git_add(root, name)
    return Merged(names=tuple(names), clashes=tuple(clashes))


def drive(base: Path, ours: Path, theirs: Path, name: str) -> None:
    """Merge an alias file as Git's merge driver: the result takes the place of ``ours``.

    Raises:
        ConflictError: somebody has to choose; the file has the marks of a conflict.
        IntegrityError: a side is no alias file; likewise.
    """
    try:
        record, clashes = _merge(
            _task(name), base.read_bytes() or None, ours.read_bytes(), theirs.read_bytes(), None
        )
    except IntegrityError:
        _mark(base, ours, theirs)
        raise
    if clashes:
        _mark(base, ours, theirs)
        raise unchosen(clashes)
    replace_file(ours, dump_record(record))


def unchosen(clashes: tuple[Clash, ...]) -> ConflictError:
    """Say what has to be chosen, and how."""
    return ConflictError(
        "; ".join(map(str, clashes)),
        fix="adapterbank merge-aliases --take ours, or --take theirs; then git commit",
    )


def _merge(
    task: str, base: bytes | None, ours: bytes | None, theirs: bytes | None, take: Side | None
) -> tuple[TaskRecord, tuple[Clash, ...]]:
    sides = {"the common ancestor": base, "our side": ours, "their side": theirs}
    records = {
        side: None if data is None else parse_record(data, task, where=f"{side} of {task}")
        for side, data in sides.items()
    }
    stamp = Stamp(actor=current_actor(), reason=f"merged, taking {take}", time=utc_now())
    old, mine, other = records.values()
    # A side that deleted the file says nothing of the versions there were.
    mine, other = mine or old or TaskRecord(task=task), other or old or TaskRecord(task=task)
    return merge_records(mine, other, old, stamp=stamp, take=take)


def _mark(base: Path, ours: Path, theirs: Path) -> None:
    """Leave in ``ours`` what Git leaves where it knows only lines."""
    labels = [word for side in ("ours", "before", "theirs") for word in ("-L", side)]
    words = ["git", "merge-file", *labels, *map(str, (ours, base, theirs))]
    subprocess.run(words, check=False, capture_output=True)  # noqa: S603  # Git calls us


def _files(root: Path) -> list[str]:
    found = [*(root / FILES[0]).glob("*.json"), root / FILES[1]]
    return [path.relative_to(root).as_posix() for path in found if path.is_file()]


def _inside(name: str) -> str:
    """Return the path of an alias file in the registry."""
    return name.removeprefix("registry/")


def _task(name: str) -> str:
    """Return the task of an alias file, or the router's name."""
    path = Path(name)
    return path.stem if path.parent.name == "aliases" else ROUTER
