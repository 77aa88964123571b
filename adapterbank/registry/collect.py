"""Find and delete what nothing needs: what killed writers left, and versions nobody can name.

A registered version is never among them, whatever its task, aliases or age: history names it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adapterbank import durable
from adapterbank.registry.layout import Layout
from adapterbank.registry.verify import survey

Keep = Callable[[str, str], str | None]
"""Says of a task's version, by its digest, who else needs it; None: nobody."""


@dataclass(frozen=True, kw_only=True)
class Waste:
    """One thing of a registry that its records do not need.

    ``needed_by`` says why it stays nevertheless; None where it goes.
    """

    kind: Literal["orphan", "unfinished"]
    task: str | None
    path: Path
    size_bytes: int
    needed_by: str | None


def collect(root: Path, keep: Keep, *, dry_run: bool) -> tuple[Waste, ...]:
    """Delete leftovers and whole versions that were never registered.

    Under the lock of all writers, so that what looks unfinished is. A task whose record is damaged
    or cannot be read loses nothing, nor does what is not the registry's own. Each deletion first
    takes the name away, so a reader finds a whole version or none.

    Args:
        root: the registry.
        keep: asked before a version goes.
        dry_run: only say what would go.

    Returns:
        what went, or would, and what stayed because somebody needs it, in the order of paths.

    Raises:
        AdapterBankError: the disk cannot be written.
        ConflictError: another writer holds the lock.
    """
    if not root.is_dir():  # a bank that has published nothing yet
        return ()
    layout = Layout(root=root)
    with durable.writable(root), durable.locked(layout.lock):
        waste = tuple(sorted(_find(layout, keep), key=lambda item: str(item.path)))
        if not dry_run:
            for item in waste:
                if item.needed_by is None:
                    _delete(item.path)
        return waste


def _find(layout: Layout, keep: Keep) -> Iterator[Waste]:
    for problem in survey(layout, layout.names(), everything=True):
        needed_by = None
        if problem.kind == "orphan" and problem.task is not None:
            needed_by = keep(problem.task, problem.path.name)
        elif problem.kind != "unfinished":
            continue  # `verify` names it
        yield Waste(
            kind=problem.kind,
            task=problem.task,
            path=problem.path,
            size_bytes=_size(problem.path),
            needed_by=needed_by,
        )


def _size(path: Path) -> int:
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    return sum(p.lstat().st_size for p in (path, *inside) if p.is_symlink() or p.is_file())


def _delete(path: Path) -> None:
    gone = path
    if not path.name.startswith(durable.TEMPORARY):
        gone = durable.temporary_beside(path)
        path.rename(gone)
    durable.sync_directory(path.parent)
    if gone.is_dir() and not gone.is_symlink():
        shutil.rmtree(gone)
    else:
        gone.unlink(missing_ok=True)
    durable.sync_directory(path.parent)
