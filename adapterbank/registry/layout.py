"""Which file of a registry is where, and how each is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from adapterbank.durable import TEMPORARY, read_file
from adapterbank.errors import FetchError, IntegrityError, UnknownName
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.task_record import TaskRecord, parse_record

__all__ = ["Layout"]

_RECORD_LIMIT = 1 << 28
_TASK_FILE = re.compile(r"([a-z0-9][a-z0-9_-]{0,63})\.json")


# Git and DVC keep these in any folder they like.
_NOT_OURS = frozenset({".gitkeep", ".gitignore"})


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The files under one registry folder."""

    root: Path

    @property
    def lock(self) -> Path:
        """Lock of all writers; its content means nothing."""
        return self.root / ".lock"

    @property
    def backbone(self) -> Path:
        """What the backbone is."""
        return self.root / "backbone.json"

    @property
    def backbone_weights(self) -> Path:
        """Where the backbone's weights are kept."""
        return self.root / "backbone" / "model.safetensors"

    @property
    def records(self) -> Path:
        """Folder of the alias files."""
        return self.root / "aliases"

    @property
    def adapters(self) -> Path:
        """Folder of the bytes of all versions."""
        return self.root / "adapters"

    def record(self, task: str) -> Path:
        """Alias file of a task."""
        return self.root.joinpath("aliases", f"{task}.json")

    def versions(self, task: str) -> Path:
        """Folder of the versions of a task."""
        return self.adapters / task

    def version(self, task: str, digest: str) -> Path:
        """Folder of one version."""
        return self.root.joinpath("adapters", task, digest)  # at once: lists need thousands

    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that have an alias file, sorted."""
        return tuple(
            sorted(
                match[1]
                for path in _listing(self.records)
                if (match := _TASK_FILE.fullmatch(path.name))
            )
        )

    def strange_records(self) -> tuple[Path, ...]:
        """Files among the alias files that are none; leftovers of killed writers included."""
        return tuple(p for p in _listing(self.records) if not _TASK_FILE.fullmatch(p.name))

    def strange_versions(self, task: str, known: frozenset[str]) -> tuple[Path, ...]:
        """Entries in the folder of a task that are none of the ``known`` digests."""
        return tuple(p for p in _listing(self.versions(task)) if p.name not in known)

    def adapter_folders(self) -> tuple[Path, ...]:
        """Entries among the version folders, of tasks and of none."""
        return tuple(_listing(self.adapters))

    def strange_adapters(self) -> tuple[Path, ...]:
        """Entries among the version folders that belong to no task."""
        known = set(self.tasks())
        return tuple(p for p in _listing(self.adapters) if p.name not in known)

    def leftovers(self) -> tuple[Path, ...]:
        """Temporary files at the top of the registry."""
        return tuple(p for p in _listing(self.root) if p.name.startswith(TEMPORARY))

    def load_record(self, task: str) -> TaskRecord | None:
        """Read the record of a task; None if there is none.

        Raises:
            IntegrityError: its alias file is damaged.
        """
        path = self.record(task)
        try:
            data = read_file(path, limit=_RECORD_LIMIT)
        except FileNotFoundError:
            return None
        return parse_record(data, task, where=str(path))

    def require_record(self, task: str) -> TaskRecord:
        """Read the record of a task that must exist.

        Raises:
            IntegrityError: its alias file is damaged.
            UnknownName: there is none; the message lists the nearest tasks.
        """
        record = self.load_record(task)
        if record is None:
            raise UnknownName("task", task, self.tasks(), fix="adapterbank list")
        return record

    def load_backbone(self) -> BackboneRecord | None:
        """Read what the backbone is; None if none was chosen.

        Raises:
            IntegrityError: ``backbone.json`` is damaged.
        """
        try:
            data = read_file(self.backbone, limit=1 << 20)
        except FileNotFoundError:
            return None
        return BackboneRecord.from_json(data, where=str(self.backbone))

    def require_backbone(self) -> BackboneRecord:
        """Read what the backbone is, which must have been chosen.

        Raises:
            FetchError: none was.
            IntegrityError: ``backbone.json`` is damaged.
        """
        backbone = self.load_backbone()
        if backbone is None:
            raise FetchError(f"{self.root} has no backbone yet", fix="adapterbank backbone fetch")
        return backbone


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name not in _NOT_OURS)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise IntegrityError(f"{folder} cannot be listed: {error.strerror}") from error
