"""A bank whose versions really answer, made in a second: two of ``colours``, one of ``bugs``."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbank.bank import keep, mirror, remove_task
from adapterbank.bank.bank import Bank
from adapterbank.continual import steps
from adapterbank.release import moves
from tests import served
from tests.cli_samples import PARAMS

TASK = "colours"
OTHER = "bugs"


def make_kept_bank(root: Path) -> Bank:
    """Make a bank; ``colours@2`` and ``bugs@1`` are champions, and ``new`` is no version yet."""
    write_params(root)
    opened = served.new_registry(root / "registry")
    for task, seed in ((TASK, 1), (TASK, 2), (OTHER, 3)):
        served.publish(opened, task, seed)
    opened.promote(f"{TASK}@1", expected=None, actor="a test")
    opened.promote(f"{TASK}@2", expected=1, actor="a test")
    opened.promote(f"{OTHER}@1", expected=None, actor="a test")
    (root / "new").mkdir()
    for name, data in files_of(TASK, 4).items():
        (root / "new" / name).write_bytes(data)
    return Bank.open(root)


def write_params(root: Path) -> None:
    """Configure a bank whose backbone is the one of the versions."""
    path = root / "pipelines" / "params.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PARAMS, encoding="utf-8")


def files_of(task: str, seed: int) -> dict[str, bytes]:
    """Return the files of a version that nobody has registered."""
    made = served.adapter(seed)
    return served.pack(made, served.describe(task, made))


def leave_mirrors_out(patch: pytest.MonkeyPatch) -> None:
    """Show nothing to MLflow and DVC: they come after the registry, and take seconds each time."""
    patch.setattr(steps, "show_matrix", lambda *_, **__: False)
    patch.setattr(moves, "follow_aliases", lambda *_, **__: None)
    patch.setattr(mirror, "follow_version", lambda *_: None)
    patch.setattr(keep, "keep_versions", lambda *_: None)
    patch.setattr(remove_task, "follow_aliases", lambda *_: None)


def content_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its path; locks mean nothing."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
