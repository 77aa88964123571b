"""The ``prepare`` stage: a task's images, checked, divided and at the bank's input size."""

from __future__ import annotations

from typing import Any

from adapterbank.bank.bank import Bank, write_json
from adapterbank.bank.ready import PREPARED, data_inputs
from adapterbank.config.bank import Limits
from adapterbank.data.base import SPLITS
from adapterbank.data.sources import load_source
from adapterbank.data.store import save_task
from adapterbank.data.subset import take_classes
from adapterbank.training.evaluation import Progress


def prepare(bank: Bank, task: str, progress: Progress | None = None) -> dict[str, Any]:
    """Decode a task's images to the bank's input size and write its splits.

    Returns:
        Source, digest, classes and counts.
    """
    section = bank.config.task(task)
    spec = bank.registry.backbone().spec
    limits = bank.config.active.limits
    data = load_source(
        section.data,
        spec=spec,
        limits=limits if section.classes is None else Limits(),
        seed=section.seed,
        root=bank.root,
        progress=progress,
    )
    if section.classes is not None:
        data = take_classes(data, section.classes, limits=limits, seed=section.seed)
    digest = save_task(data, bank.data(task), spec)
    found = {
        "task": task,
        "source": data.source,
        "digest": digest,
        "classes": len(data.classes),
        "counts": {name: len(data.split(name)) for name in SPLITS},
        "notes": data.notes,
    }
    write_json(bank.note(task, PREPARED), {**found, "parameters": data_inputs(bank, task)})
    return found
