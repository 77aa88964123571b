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
from adapterbank.errors import IntegrityError
from adapterbank.records import ROUTER
from adapterbank.registry.layout import Layout
from adapterbank.registry.manifest import check_files, kind_of

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
        found = sorted(_survey(layout, keep), key=lambda waste: str(waste.path))
        if not dry_run:
            for waste in found:
                if waste.needed_by is None:
                    _delete(waste.path)
        return tuple(found)


def _survey(layout: Layout, keep: Keep) -> Iterator[Waste]:
    for path in (*layout.leftovers(), *layout.strange_records()):
        if _is_leftover(path):
            yield _leftover(None, path)
    adapters = [folder for folder in layout.adapter_folders() if folder.name != ROUTER]
    for folder in (*adapters, layout.versions(ROUTER)):
        task = folder.name
        if _is_leftover(folder):
            yield _leftover(None, folder)
            continue
        if folder.is_symlink() or not folder.is_dir():
            continue  # not the registry's; `verify` names it
        try:
            record = layout.load_record(task)
        except IntegrityError:
            continue  # nobody knows which versions it names
        known = frozenset(entry.digest for entry in record.versions) if record else frozenset()
        for path in layout.strange_versions(task, known):
            if _is_leftover(path):
                yield _leftover(task, path)
            elif _is_version(task, path):
                needed = keep(task, path.name)
                yield Waste(kind="orphan", task=task, path=path, size_bytes=_size(path),
                            needed_by=needed)  # fmt: skip


def _leftover(task: str | None, path: Path) -> Waste:
    return Waste(kind="unfinished", task=task, path=path, size_bytes=_size(path), needed_by=None)


def _is_leftover(path: Path) -> bool:
    return path.name.startswith(durable.TEMPORARY)


def _is_version(task: str, path: Path) -> bool:
    try:
        check_files(path, path.name, kind_of(task))
    except IntegrityError:
        return False
    return True


def _size(path: Path) -> int:
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    return sum(p.lstat().st_size for p in (path, *inside) if p.is_symlink() or p.is_file())


def _delete(path: Path) -> None:
    gone = path
    if not _is_leftover(path):
        gone = durable.temporary_beside(path)
        path.rename(gone)
    durable.sync_directory(path.parent)
    if gone.is_dir() and not gone.is_symlink():
        shutil.rmtree(gone)
    else:
        gone.unlink(missing_ok=True)
    durable.sync_directory(path.parent)
