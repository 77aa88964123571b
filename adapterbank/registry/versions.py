"""What the registry hands out, and who and when it writes into history."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from adapterbank.registry.task_record import Event


@dataclass(frozen=True, kw_only=True)
class Version:
    """One immutable adapter. ``digest`` is its identity, ``version`` its number in its task."""

    task: str
    version: int
    digest: str
    path: Path

    def __str__(self) -> str:
        return f"{self.task}@{self.version}"


@dataclass(frozen=True, kw_only=True)
class Move:
    """What a promotion or a rollback did; ``moved`` is False where there was nothing to do."""

    alias: str
    before: int | None
    after: Version
    moved: bool
    event: Event | None


def utc_now() -> str:
    """Return the time as history states it, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def current_actor() -> str:
    """Return the name of the user, or ``unknown`` where the system has none for them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
