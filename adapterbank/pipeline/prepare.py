"""The ``prepare`` stage: a task's images, checked, divided and at the bank's input size."""

from __future__ import annotations

from typing import Any

from adapterbank import durable
from adapterbank.bank.bank import Bank, write_json
from adapterbank.bank.ready import PREPARED, data_inputs
from adapterbank.config.bank import Limits
from adapterbank.data.sources import select_images
from adapterbank.data.store import Progress, read_index, save_selection
from adapterbank.data.subset import take_classes


def prepare(bank: Bank, task: str, progress: Progress | None = None) -> dict[str, Any]:
    """Decode a task's images to the bank's input size and write its splits.

    Returns:
        Source, digest, classes and counts.

    Raises:
        ConflictError: another process has been preparing the task for a minute.
    """
    lock = bank.note(task, "locks") / "prepare"
    durable.make_directory(lock.parent)
    with durable.locked(lock):
        return _prepare(bank, task, progress)


def _prepare(bank: Bank, task: str, progress: Progress | None) -> dict[str, Any]:
    section = bank.config.task(task)
    spec = bank.registry.backbone().spec
    limits = bank.config.active.limits
    selection = select_images(
        section.data,
        spec=spec,
        limits=limits if section.classes is None else Limits(),
        seed=section.seed,
        root=bank.root,
    )
    if section.classes is not None:
        selection = take_classes(selection, section.classes, limits=limits, seed=section.seed)
    save_selection(selection, bank.data(task), spec, progress)
    index = read_index(bank.data(task))
    note = {
        "task": task,
        "source": index.source,
        "digest": index.digest,
        "classes": len(index.classes),
        "counts": index.counts,
        "notes": index.notes,
    }
    write_json(bank.note(task, PREPARED), {**note, "parameters": data_inputs(bank, task)})
    return note
