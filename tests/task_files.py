"""Tasks that are in memory: their files, and the digest that those must state."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from adapterbank.data.base import SPLITS, TaskData
from adapterbank.data.selection import Rows, Selection
from adapterbank.data.store import read_index, save_selection
from adapterbank.records import InputSpec


def save_task(data: TaskData, directory: Path, spec: InputSpec) -> str:
    """Write a task that is in memory and return its digest."""
    splits = {name: data.split(name) for name in SPLITS}
    selection = Selection(
        classes=data.classes,
        splits={
            name: Rows(labels=split.labels, read=split.images.__getitem__)
            for name, split in splits.items()
        },
        source=data.source,
        notes=data.notes,
        may_share=True,
    )
    return save_selection(selection, directory, spec)


def restate(directory: Path, **changes: object) -> None:
    """Have the index of a prepared task say something else, as a whole one would."""
    index = read_index(directory).model_copy(update=changes)
    content = index.model_copy(update={"check": index.sum}).model_dump()
    (directory / "task.json").write_text(json.dumps(content))


def data_digest(data: TaskData) -> str:
    """Hash classes, pixels and labels in one go, as they are hashed while they are written."""
    digest = hashlib.sha256(json.dumps(data.classes, ensure_ascii=False).encode())
    for name in SPLITS:
        split = data.split(name)
        for part, tensor in (("images", split.images), ("labels", split.labels)):
            digest.update(f"\n{name}.{part} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
