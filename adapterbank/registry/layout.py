"""Which file of a registry is where, and how each is read."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from adapterbank.durable import read_file
from adapterbank.errors import FetchError, InputError, IntegrityError, UnknownName
from adapterbank.records import ROUTER
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.manifest import kind_of
from adapterbank.registry.task_record import TaskRecord, parse_record

_RECORD_LIMIT = 1 << 28
TASK_FILE = re.compile(r"([a-z0-9][a-z0-9_-]{0,63})\.json")


# Git and DVC keep these in any folder they like.
_NOT_OURS = frozenset({".gitkeep", ".gitignore"})


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The files under one registry folder.

    Args:
        root: the folder.
        new: there was none when the registry was opened, and need be none until the first write.
    """

    root: Path
    new: bool = False

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

    def record(self, task: str) -> Path:
        """Alias file of a task, or of the router."""
        return self.root / kind_of(task).record(task)

    def versions(self, task: str) -> Path:
        """Folder of the versions of a task, or of the router."""
        return self.root / kind_of(task).versions(task)

    def version(self, task: str, digest: str) -> Path:
        """Folder of one version."""
        return self.root.joinpath(kind_of(task).versions(task), digest)  # lists need thousands

    def names(self) -> tuple[str, ...]:
        """Names of all tasks, then the router's if there is anything of one."""
        routed = self.record(ROUTER).exists() or self.versions(ROUTER).exists()
        return (*self.tasks(), ROUTER) if routed else self.tasks()

    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that have an alias file, sorted.

        Raises:
            InputError: the registry itself is gone.
            IntegrityError: the alias files lie outside the registry, or cannot be listed.
        """
        self._refuse_linked_records()
        matches = (TASK_FILE.fullmatch(path.name) for path in listing(self.records))
        names = sorted(match[1] for match in matches if match and match[1] != ROUTER)
        if not names:
            self._require_root()
        return tuple(names)

    def load_record(self, task: str) -> TaskRecord | None:
        """Read the record of a task; None if there is none.

        Raises:
            IntegrityError: its alias file is damaged, or lies outside the registry.
        """
        self._refuse_linked_records()
        path = self.record(task)
        name = path.relative_to(self.root).as_posix()
        data = _read_tracked(path, _RECORD_LIMIT, name)
        return None if data is None else parse_record(data, task, where=str(path), name=name)

    def _refuse_linked_records(self) -> None:
        """Refuse alias files of another place: they say what is served."""
        if self.records.is_symlink():
            name = shlex.quote(str(self.records))
            raise IntegrityError(
                f"{self.records} is a symbolic link",
                fix=f"rm {name} && git checkout HEAD -- {name}",
            )

    def _require_root(self) -> None:
        """Tell a registry that has nothing from one that was moved away while it was open."""
        if not self.new and not self.root.is_dir():
            raise InputError(
                f"{self.root} is no registry any more: there is no such folder",
                fix="repeat the command where the registry is now",
            )

    def require_record(self, task: str) -> TaskRecord:
        """Read the record of a task that must exist.

        Raises:
            InputError: the registry itself is gone.
            IntegrityError: its alias file is damaged.
            UnknownName: there is none; the message lists the nearest tasks.
        """
        record = self.load_record(task)
        if record is None:
            if task == ROUTER:
                fix = "adapterbank router rebuild"
                raise UnknownName("router", task, why="The bank has none yet", fix=fix)
            raise UnknownName("task", task, self.tasks(), fix="adapterbank list")
        return record

    def load_backbone(self) -> BackboneRecord | None:
        """Read what the backbone is; None if none was chosen.

        Raises:
            IntegrityError: ``backbone.json`` is damaged.
        """
        data = _read_tracked(self.backbone, 1 << 20, "backbone.json")
        return None if data is None else BackboneRecord.from_json(data, where=str(self.backbone))

    def require_backbone(self) -> BackboneRecord:
        """Read what the backbone is, which must have been chosen.

        Raises:
            FetchError: none was.
            InputError: the registry itself is gone.
            IntegrityError: ``backbone.json`` is damaged.
        """
        backbone = self.load_backbone()
        if backbone is None:
            self._require_root()
            raise FetchError(f"{self.root} has no backbone yet", fix="adapterbank backbone fetch")
        return backbone


def _read_tracked(path: Path, limit: int, name: str) -> bytes | None:
    """Read a file that Git keeps; None if there is none."""
    try:
        return read_file(path, limit=limit)
    except FileNotFoundError:
        return None
    except IntegrityError as error:
        raise IntegrityError(error.message, fix=f"git checkout HEAD -- registry/{name}") from error


def listing(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted; nothing of one that does not exist.

    Raises:
        IntegrityError: it cannot be listed.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.name not in _NOT_OURS)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise IntegrityError(f"{folder} cannot be listed: {error.strerror}") from error
