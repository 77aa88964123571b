"""Test images as files, to try a bank with."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from adapterbank.bank.bank import Bank
from adapterbank.data.store import load_task


def write_samples(bank: Bank, task: str, number: int, out: Path) -> list[tuple[Path, str]]:
    """Write test images class by class, one of each before a second of any.

    Returns:
        The files and their true classes.
    """
    data = load_task(bank.data(task))
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(data.test.labels.tolist()):
        rows.setdefault(label, []).append(row)
    # (rank within its class, class): sorting takes one of each class at a time
    order = sorted(
        (rank, label, row) for label, own in rows.items() for rank, row in enumerate(own)
    )
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for rank, label, row in order[:number]:
        safe = re.sub(r"[^\w.-]+", "_", data.classes[label]).strip(".") or "class"
        path = out / f"{safe}-{rank + 1}.png"
        Image.fromarray(data.test.images[row].permute(1, 2, 0).numpy()).save(path)
        written.append((path, data.classes[label]))
    return written
