"""One bank on disk: its folder, its configuration and its registry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from adapterbank import durable
from adapterbank.config.bank import BankConfig, find_bank, load_config
from adapterbank.errors import InputError, IntegrityError
from adapterbank.reading import read_document
from adapterbank.registry.store import Registry

T = TypeVar("T")

RELEASE_REPORT = "reports/release.json"
RUN = "run.json"
_NOTE = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


@dataclass(frozen=True)
class Bank:
    """A folder with ``pipelines/params.yaml`` and ``registry/``.

    ``work/<task>/`` holds what the stages hand to one another; all of it can be rebuilt.
    """

    root: Path
    config: BankConfig
    registry: Registry

    @classmethod
    def open(cls, start: Path) -> Bank:
        """Open the bank at or above a folder.

        Raises:
            InputError: there is none.
            ConfigError: its configuration has problems; all are named.
        """
        root = find_bank(start)
        registry = Registry.open(root / "registry", create=True)
        return cls(root=root, config=load_config(root), registry=registry)

    def data(self, task: str) -> Path:
        """Prepared splits, written by ``prepare``."""
        return self.root / "work" / task / "data"

    def trained(self, task: str) -> Path:
        """The trained adapter and its statistics, written by ``train``."""
        return self.root / "work" / task / "trained"

    def checkpoint(self, task: str) -> Path:
        """State of a training that has not finished; no output of DVC's, which would delete it."""
        return self.root / "work" / task / "checkpoint"

    def version(self, task: str) -> Path:
        """The complete files of a version, written by ``evaluate``."""
        return self.root / "work" / task / "version"

    def note(self, task: str, name: str) -> Path:
        """A small file of a stage, such as ``run.json`` or ``metrics.json``."""
        return self.root / "work" / task / name


@checked(frozen=True, kw_only=True, config=_NOTE)
class RunNote:
    """What ``train`` leaves of its run in ``run.json``."""

    run_id: str
    seconds: Annotated[float, Field(ge=0)] = 0.0


@checked(frozen=True, kw_only=True, config=_NOTE)
class DataNote:
    """What ``prepare`` says of the images in ``task.json``, as far as people want to know."""

    classes: list[str]
    counts: dict[str, int]
    digest: str
    source: str
    notes: str


def read_run(bank: Bank, task: str) -> RunNote:
    """Read what is noted of a task's training.

    Raises:
        InputError: it was not trained, or the note is damaged.
    """
    return read_note(bank.note(task, RUN), RunNote, fix=f"dvc repro train@{task}")


def read_json(path: Path, *, fix: str) -> dict[str, Any]:
    """Read a stage's JSON note.

    Raises:
        InputError: it is missing or damaged; ``fix`` is the command that writes it.
    """
    return read_note(path, dict[str, Any], fix=fix)


def read_note(path: Path, shape: type[T], *, fix: str) -> T:
    """Read a stage's JSON note into a pydantic dataclass, or whatever pydantic can check.

    Raises:
        InputError: it is missing or damaged; ``fix`` is the command that writes it.
    """
    try:
        return read_document(path.read_bytes(), shape, str(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: not there yet", fix=fix) from error
    except IntegrityError as error:
        raise InputError(error.message, fix=fix) from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a stage's JSON note; a reader sees all of the old one or all of the new one."""
    durable.make_directory(path.parent)
    durable.replace_file(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
