"""A task's images without a bank."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from adapterbank.config.bank import Limits
from adapterbank.data.base import TaskData
from adapterbank.data.batches import Progress
from adapterbank.data.folders import Choices
from adapterbank.data.sources import select_images
from adapterbank.data.store import load_task, save_selection
from adapterbank.records import InputSpec


def load_source(
    uri: str,
    *,
    spec: InputSpec,
    limits: Limits,
    seed: int,
    root: Path,
    choices: Choices = Choices(),  # noqa: B008  # frozen
    progress: Progress | None = None,
) -> TaskData:
    """Select and decode a task's images; the files they are in have no name.

    Args and errors are those of :func:`~adapterbank.data.sources.select_images` and
    :func:`~adapterbank.data.store.save_selection`.
    """
    selection = select_images(
        uri, spec=spec, limits=limits, seed=seed, root=root, choices=choices, progress=progress
    )
    with TemporaryDirectory() as folder:
        save_selection(selection, Path(folder), spec, progress)
        return load_task(Path(folder))  # which maps them
