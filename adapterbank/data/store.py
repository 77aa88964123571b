"""A prepared task on disk: three safetensors files and a small JSON, mapped rather than read.

They are written image by image as the images are decoded, so memory does not grow with their
number. Nothing in the files changes from run to run (no time, no path), so DVC sees equal data as
equal.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from pydantic_core import to_jsonable_python
from safetensors import SafetensorError
from safetensors.torch import load_file

from adapterbank import durable
from adapterbank.data.base import SPLITS, Split, TaskData, bytes_of, pixel_digest
from adapterbank.data.batches import TOGETHER, Progress, in_batches
from adapterbank.data.selection import Rows, Selection
from adapterbank.errors import ImageError, InputError, IntegrityError
from adapterbank.reading import read_document
from adapterbank.records import InputSpec

_INDEX = "task.json"
_FIX = "dvc repro"  # prepares what is not there, or for another input


class Index(BaseModel):
    """What ``task.json`` holds."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    schema_version: Literal[1, 2]  # 1: neither of the last two
    classes: list[str]
    source: str
    notes: str
    counts: dict[Literal["train", "val", "test"], int]
    digest: str
    spec: dict[str, object]
    files: dict[Literal["train", "val", "test"], str] = {}  # SHA-256 of each split's file
    check: str = ""  # SHA-256 of all the rest

    @property
    def sum(self) -> str:
        """SHA-256 of all but ``check``."""
        content = self.model_dump(exclude={"check"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def save_selection(
    selection: Selection, directory: Path, spec: InputSpec, progress: Progress | None = None
) -> str:
    """Decode a task's images into files; a crash leaves them whole or visibly unfinished.

    All is decoded and checked before anything there is replaced. Then ``task.json`` is removed
    first and written last: a folder without it was interrupted. A bad image does not stop the
    others: all of them are named together.

    Args:
        selection: what to decode.
        directory: created if needed; earlier files of a task in it are replaced.
        spec: how the pixels are made; a load with another one is refused.
        progress: told of the images.

    Returns:
        The identity of the data in manifests and runs: SHA-256 of pixels, labels and class names.
        The same pixels from another folder, with other notes, are the same data.

    Raises:
        ConfigError: see :meth:`Selection.check` and :meth:`Selection.check_decoded`.
        FetchError: see :meth:`Selection.check_decoded`.
        InputError: see :meth:`Selection.check_decoded`.
    """
    selection.check()
    durable.make_directory(directory)
    durable.remove_temporaries(directory)  # of an interrupted save
    total, decoded = sum(len(rows.labels) for rows in selection.splits.values()), count(1)
    errors: list[ImageError] = []

    def tell() -> None:
        if progress is not None:
            progress(next(decoded), total)

    digest, files = _digest_of(selection.classes), dict[str, str]()
    paths = {name: directory / f"{name}.safetensors" for name in SPLITS}
    temporaries = {name: durable.temporary_beside(path) for name, path in paths.items()}
    digests: dict[str, list[bytes]] = {}
    try:
        for name, path in temporaries.items():
            labels = selection.splits[name].labels.contiguous()
            shape = (len(labels), 3, *spec.size)
            digest.update(_title(name, "images", torch.uint8, shape))
            digests[name] = []
            with path.open("xb") as stream:
                head = _header(labels, shape) + bytes(bytes_of(labels))
                file = hashlib.sha256(head)
                stream.write(head)
                for image in _decode(selection.splits[name], errors, tell):
                    stream.write(bytes_of(image))
                    file.update(bytes_of(image))
                    digest.update(bytes_of(image))
                    digests[name].append(pixel_digest(image))
                stream.flush()
                os.fsync(stream.fileno())
            files[name] = file.hexdigest()
            digest.update(_title(name, "labels", labels.dtype, tuple(labels.shape)))
            digest.update(bytes_of(labels))
        notes = selection.check_decoded(digests, errors)
        (directory / _INDEX).unlink(missing_ok=True)
        for name, path in temporaries.items():
            path.replace(paths[name])
    finally:
        for path in temporaries.values():
            path.unlink(missing_ok=True)  # a full disk should get its space back
    durable.sync_directory(directory)
    _write_index(directory, selection, spec, notes=notes, digest=digest.hexdigest(), files=files)
    return digest.hexdigest()


def _write_index(
    directory: Path,
    selection: Selection,
    spec: InputSpec,
    *,
    notes: str,
    digest: str,
    files: Mapping[str, str],
) -> None:
    index = Index.model_validate({
        "schema_version": 2,
        "classes": list(selection.classes),
        "source": selection.source,
        "notes": notes,
        "counts": {name: len(rows.labels) for name, rows in selection.splits.items()},
        "digest": digest,
        "spec": _spec_json(spec),
        "files": dict(files),
    })  # fmt: skip
    content = index.model_copy(update={"check": index.sum}).model_dump()
    text = json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    durable.replace_file(directory / _INDEX, text.encode())


def load_task(directory: Path, *, spec: InputSpec | None = None) -> TaskData:
    """Open a prepared task: its pixels are hashed, once a process, and mapped from the files.

    Args:
        directory: where :func:`save_selection` wrote it.
        spec: the input spec the caller works with; pixels made with another one are refused.

    Returns:
        The task; its tensors are read-only in spirit: they are views of the files.

    Raises:
        InputError: there is no prepared task in ``directory``, or it was prepared for another
            input spec.
        IntegrityError: a file is missing, damaged or not what ``task.json`` describes.
    """
    index = read_index(directory)
    if spec is not None and index.spec != _spec_json(spec):
        raise InputError(
            f"{directory}: prepared for the input {index.spec}, expected {_spec_json(spec)}",
            fix=_FIX,
        )
    paths = {name: directory / f"{name}.safetensors" for name in SPLITS}
    fix = _again(directory)
    for name, expected in index.files.items():
        if _file_sum(paths[name]) != expected:
            raise IntegrityError(f"{paths[name]}: missing or damaged", fix=fix)
    splits = {name: _read_split(path, fix) for name, path in paths.items()}
    counts = {name: len(split) for name, split in splits.items()}
    if counts != index.counts:
        raise IntegrityError(f"{directory}: got {counts} images, expected {index.counts}", fix=fix)
    task = TaskData(classes=tuple(index.classes), source=index.source, notes=index.notes, **splits)
    if not index.files and _digest(task) != index.digest:  # of an earlier program
        raise IntegrityError(f"{directory}: train, val or test.safetensors is damaged", fix=fix)
    return task


def _again(directory: Path) -> str:
    """Say how to prepare a task of a bank again, also where DVC sees no change."""
    return f"dvc repro -f prepare@{directory.parent.name}"


def _file_sum(path: Path) -> str | None:
    """Hash a file that this process has not hashed as it is now; None if it cannot be read."""
    try:
        status = path.stat()
        times = (status.st_mtime_ns, status.st_ctime_ns)
        return _hashed(path, (status.st_dev, status.st_ino, status.st_size, *times))
    except OSError:
        return None


@lru_cache(maxsize=1024)
def _hashed(path: Path, _identity: tuple[int, ...]) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(task: TaskData) -> str:
    """Hash a task as :func:`save_selection` does while it decodes."""
    digest = _digest_of(task.classes)
    for name in SPLITS:
        split = task.split(name)
        for part, tensor in (("images", split.images), ("labels", split.labels)):
            digest.update(_title(name, part, tensor.dtype, tuple(tensor.shape)))
            digest.update(bytes_of(tensor))
    return digest.hexdigest()


def _digest_of(classes: Sequence[str]) -> hashlib._Hash:
    return hashlib.sha256(json.dumps(classes, ensure_ascii=False).encode())


def _title(split: str, part: str, dtype: torch.dtype, shape: tuple[int, ...]) -> bytes:
    """Name a tensor, which keeps two layouts of the same bytes apart."""
    return f"\n{split}.{part} {dtype} {shape}\n".encode()


def stored_digest(directory: Path) -> str:
    """Return the digest of a prepared task as it was written; see :func:`read_index`."""
    return read_index(directory).digest


def read_index(directory: Path) -> Index:
    """Read what is said of a prepared task.

    Raises:
        InputError: no prepared task is there.
        IntegrityError: its index is damaged.
    """
    path = directory / _INDEX
    try:
        index = read_document(path.read_bytes(), Index, str(path), fix=_again(directory))
    except FileNotFoundError as error:
        raise InputError(
            f"{directory}: no prepared task here ({_INDEX} is missing)", fix=_FIX
        ) from error
    if index.schema_version > 1 and index.check != index.sum:
        raise IntegrityError(f"{path}: damaged", fix=_again(directory))
    return index


def _read_split(path: Path, fix: str) -> Split:
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
        return Split(images=tensors["images"], labels=tensors["labels"])
    except (OSError, SafetensorError, KeyError, InputError) as error:
        raise IntegrityError(f"{path}: missing or damaged: {error}", fix=fix) from error


def _spec_json(spec: InputSpec) -> dict[str, object]:
    """Give the spec as JSON reads it back (lists for tuples)."""
    plain: dict[str, object] = to_jsonable_python(spec)
    return plain


def _decode(
    rows: Rows, errors: list[ImageError], tell: Callable[[], None]
) -> Iterator[torch.Tensor]:
    """Yield the pixels (3, H, W) of a split in order; of bad images, keep the errors."""

    def read(row: int) -> torch.Tensor | ImageError:
        try:
            return rows.read(row)
        except ImageError as error:
            return error.alone()

    for image in chain.from_iterable(in_batches(read, range(len(rows.labels)), TOGETHER)):
        tell()
        if isinstance(image, ImageError):
            errors.append(image)
        else:
            yield image


def _header(labels: torch.Tensor, shape: tuple[int, ...]) -> bytes:
    """Make what stands before the data, byte for byte as safetensors' own ``save_file`` does."""
    middle = labels.nbytes
    entries = {
        "labels": {"dtype": "I64", "shape": list(labels.shape), "data_offsets": [0, middle]},
        "images": {
            "dtype": "U8",
            "shape": list(shape),
            "data_offsets": [middle, middle + math.prod(shape)],
        },
    }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
