"""The ``prepare`` stage: a task's images, checked, divided and at the bank's input size."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from adapterbank import durable
from adapterbank.bank.bank import Bank, write_json
from adapterbank.bank.images import UNREADABLE, select
from adapterbank.bank.ready import PREPARED, data_inputs
from adapterbank.data.batches import Progress
from adapterbank.data.store import read_index, save_selection


def prepare(bank: Bank, task: str, progress: Progress | None = None) -> dict[str, Any]:
    """Decode a task's images to the bank's input size and write its splits.

    Returns:
        Source, digest, classes, counts and what was left out.

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
    selection = select(bank, section, spec, bank.note(task, UNREADABLE), progress)
    save_selection(selection, bank.data(task), spec, progress)
    index = read_index(bank.data(task))
    note = {
        "task": task,
        "source": index.source,
        "digest": index.digest,
        "classes": len(index.classes),
        "counts": index.counts,
        "notes": index.notes,
        "left_out": [asdict(one) for one in selection.left_out],
    }
    write_json(bank.note(task, PREPARED), {**note, "parameters": data_inputs(bank, task)})
    return note
