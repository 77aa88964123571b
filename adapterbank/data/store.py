"""A prepared task on disk: three safetensors files and a small JSON, mapped rather than read.

Nothing in the files changes from run to run (no time, no path), so DVC sees equal data as equal.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from adapterbank import durable
from adapterbank.data.base import SPLITS, Split, TaskData, check_task, data_digest
from adapterbank.errors import InputError, IntegrityError
from adapterbank.records import InputSpec

_INDEX = "task.json"
_FIX = "dvc repro"  # notices that an output changed and prepares it again


class _Counts(BaseModel):
    """Images of each split."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    train: int
    val: int
    test: int


class _Index(BaseModel):
    """What ``task.json`` holds."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    schema_version: Literal[1]
    classes: list[str]
    source: str
    notes: str
    counts: _Counts
    digest: str
    spec: dict[str, object]


def save_task(data: TaskData, directory: Path, spec: InputSpec) -> str:
    """Write a task so that a crash at any moment leaves it whole or visibly unfinished.

    ``task.json`` is removed first and written last: a folder without it was interrupted.

    Args:
        data: the task; checked again, so that no bad data is ever stored.
        directory: created if needed; earlier files of a task in it are replaced.
        spec: how the pixels were made; a load with another one is refused.

    Returns:
        The digest of the data, see :func:`~adapterbank.data.base.data_digest`.

    Raises:
        ConfigError: the data does not pass :func:`~adapterbank.data.base.check_task`.
    """
    check_task(data, allow_shared=True)
    durable.make_directory(directory)
    durable.remove_temporaries(directory)  # of an interrupted save
    (directory / _INDEX).unlink(missing_ok=True)
    for name in SPLITS:
        split = data.split(name)
        tensors = {"images": split.images.contiguous(), "labels": split.labels.contiguous()}
        _write_tensors(directory / f"{name}.safetensors", tensors)
    index = {
        "schema_version": 1,
        "classes": list(data.classes),
        "source": data.source,
        "notes": data.notes,
        "counts": {name: len(data.split(name)) for name in SPLITS},
        "digest": data_digest(data),
        "spec": _spec_json(spec),
    }
    text = json.dumps(index, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    durable.replace_file(directory / _INDEX, text.encode())
    return str(index["digest"])


def load_task(directory: Path, *, spec: InputSpec | None = None, verify: bool = False) -> TaskData:
    """Open a prepared task without reading its pixels: they are mapped from the files.

    Args:
        directory: where :func:`save_task` wrote it.
        spec: the input spec the caller works with; pixels made with another one are refused.
        verify: also hash all bytes and compare with the stored digest (about a second a
            gigabyte). Names, counts, types and shapes are always checked.

    Returns:
        The task; its tensors are read-only in spirit: they are views of the files.

    Raises:
        InputError: there is no prepared task in ``directory``, or it was prepared for another
            input spec.
        IntegrityError: a file is missing, damaged or not what ``task.json`` describes.
    """
    index = _read_index(directory)
    if spec is not None and index.spec != _spec_json(spec):
        raise InputError(
            f"{directory}: prepared for the input {index.spec}, expected {_spec_json(spec)}",
            fix=_FIX,
        )
    splits = {name: _read_split(directory / f"{name}.safetensors") for name in SPLITS}
    counts = {name: len(split) for name, split in splits.items()}
    if counts != index.counts.model_dump():
        raise IntegrityError(
            f"{directory}: got {counts} images, expected {index.counts.model_dump()}", fix=_FIX
        )
    data = TaskData(classes=tuple(index.classes), source=index.source, notes=index.notes, **splits)
    if verify and (found := data_digest(data)) != index.digest:
        raise IntegrityError(
            f"{directory}: the data hashes to {found}, expected {index.digest}", fix=_FIX
        )
    return data


def stored_digest(directory: Path) -> str:
    """Return the digest of a prepared task as it was written, without hashing again.

    Raises:
        InputError: no prepared task is there.
        IntegrityError: its index is damaged.
    """
    return _read_index(directory).digest


def _read_index(directory: Path) -> _Index:
    path = directory / _INDEX
    try:
        return _Index.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(
            f"{directory}: no prepared task here ({_INDEX} is missing)", fix=_FIX
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise IntegrityError(f"{path}: {where}: {first['msg']}", fix=_FIX) from error


def _read_split(path: Path) -> Split:
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
        return Split(images=tensors["images"], labels=tensors["labels"])
    except (OSError, SafetensorError, KeyError, InputError) as error:
        raise IntegrityError(f"{path}: missing or damaged: {error}", fix=_FIX) from error


def _spec_json(spec: InputSpec) -> dict[str, object]:
    """Give the spec as JSON reads it back (lists for tuples)."""
    plain: dict[str, object] = json.loads(json.dumps(asdict(spec)))
    return plain


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors straight from memory, gigabytes without a second copy, then name the file."""
    temporary = durable.temporary_beside(path)
    try:
        save_file(tensors, temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # a full disk should get its space back
        raise
    durable.sync_directory(path.parent)
