"""The images of a task, as its section of the configuration says."""

from __future__ import annotations

from pathlib import Path

from adapterbank.bank.bank import Bank
from adapterbank.config.bank import TaskConfig
from adapterbank.data.batches import Progress
from adapterbank.data.folders import Choices
from adapterbank.data.selection import Selection
from adapterbank.data.sources import select_images
from adapterbank.records import InputSpec

UNREADABLE = "unreadable.txt"
"""Names the images of a task that cannot be decoded, where they are too many for a message."""


def select(
    bank: Bank,
    section: TaskConfig,
    spec: InputSpec,
    report: Path | None = None,
    progress: Progress | None = None,
) -> Selection:
    """Select a task's images as its section says; see :func:`select_images` for the errors."""
    return select_images(
        section.data,
        spec=spec,
        limits=bank.config.active.limits,
        seed=section.seed,
        root=bank.root,
        classes=section.classes,
        choices=Choices(
            skip_unreadable=section.skip_unreadable,
            drop_copies=section.drop_copies,
            report=report,
        ),
        progress=progress,
    )
