"""What a version is: its files, their hashes, and the one digest that names them all.

``manifest.json`` lists every file of a version with its SHA-256, MD5 and size; the SHA-256 of the
manifest itself *is* the version. The MD5 is no safeguard: DVC names its objects by it, so the MD5
of a manifest leads to every byte of the version in any DVC cache or remote.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Collection, Mapping
from dataclasses import asdict
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from adapterbank.durable import linked_object, read_file
from adapterbank.errors import IntegrityError, NotPulled
from adapterbank.reading import read_document
from adapterbank.records import ROUTER
from adapterbank.registry.backbone import Sha256
from adapterbank.registry.documents import dump_document

MANIFEST = "manifest.json"
MANIFEST_LIMIT = 1 << 16
_STRICT = ConfigDict(strict=True, extra="forbid")

# Every file a version may have and the most bytes it may take. Nothing else is written or served.
FILE_LIMITS: Mapping[str, int] = {
    "README.md": 1 << 24,
    "adapter_config.json": 1 << 25,
    "adapter_model.safetensors": 1 << 30,
    "canary.safetensors": 1 << 28,
    "metrics.json": 1 << 24,
    "routing.safetensors": 1 << 30,
    "seen_images.bin": 1 << 25,  # two million images
}


@plain_dataclass(frozen=True, kw_only=True)
class Kind:
    """What versions of one kind consist of.

    Args:
        limits: every file one may have, and the most bytes it may take.
        required: files none may lack.
        record_path: where the registry keeps its record; ``{}`` stands for the task.
        versions_path: the folder of its versions, likewise.
        mend: the command that brings a version back; ``{ref}`` stands for it.
        fetch: the command that brings one whose folder is not there; likewise.
        adopt: the command that registers a whole version that was not; ``{}`` stands for it.
    """

    limits: Mapping[str, int]
    required: tuple[str, ...]
    record_path: str
    versions_path: str
    mend: str
    fetch: str
    adopt: str

    def record(self, task: str) -> str:
        """Return where the record is, relative to the registry."""
        return self.record_path.format(task)

    def versions(self, task: str) -> str:
        """Return the folder of the versions, relative to the registry."""
        return self.versions_path.format(task)


ADAPTER = Kind(
    limits=FILE_LIMITS,
    required=("adapter_config.json", "adapter_model.safetensors"),
    record_path="aliases/{}.json",
    versions_path="adapters/{}",
    # From DVC's cache or its remote. `dvc checkout` would lose the versions that DVC does not know.
    mend="adapterbank pull {ref}",
    fetch="adapterbank pull {ref}",
    adopt="adapterbank register {}",
)
ROUTERS = Kind(
    limits={"router.json": 1 << 26, "router.safetensors": 1 << 32},
    required=("router.json", "router.safetensors"),
    record_path="router.json",
    versions_path="router",
    mend="adapterbank router rebuild",  # a function of what the registry has
    fetch="adapterbank pull && adapterbank router rebuild",
    adopt="adapterbank router rebuild",
)


def kind_of(task: str) -> Kind:
    """Return what versions under the name of a task, or of the router, consist of."""
    return ROUTERS if task == ROUTER else ADAPTER


def md5_of(data: bytes) -> str:
    """Return the MD5 of a file's content, by which DVC names it."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class FileRecord:
    """One file as the manifest states it."""

    sha256: Sha256
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    size: Annotated[int, Field(ge=0)]

    @classmethod
    def of(cls, data: bytes) -> FileRecord:
        """State ``data``."""
        return cls(sha256=hashlib.sha256(data).hexdigest(), md5=md5_of(data), size=len(data))


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class _Manifest:
    schema: Literal[1]
    files: dict[str, FileRecord]


def build_manifest(files: Mapping[str, bytes], kind: Kind = ADAPTER) -> bytes:
    """Write the manifest of ``files``; equal files give equal bytes.

    Raises:
        IntegrityError: a file that no version may have, one too large to be read back, or a
            required one is missing.
    """
    _check_names(files, where="the new version", kind=kind)
    for name, data in files.items():
        if len(data) > kind.limits[name]:
            raise IntegrityError(
                f"{name} of the new version has {len(data):,} bytes, more than the"
                f" {kind.limits[name]:,} allowed"
            )
    records = {name: asdict(FileRecord.of(files[name])) for name in sorted(files)}
    return dump_document({"schema": 1, "files": records})


def parse_manifest(
    data: bytes, *, where: str = MANIFEST, kind: Kind = ADAPTER
) -> dict[str, FileRecord]:
    """Read a manifest.

    Raises:
        IntegrityError: it is not a manifest of a known schema.
    """
    if len(data) > MANIFEST_LIMIT:
        raise IntegrityError(f"{where} has {len(data):,} bytes; a manifest never has so many")
    files = read_document(data, _Manifest, where).files
    _check_names(files, where=where, kind=kind)
    return files


def version_digest(manifest: bytes) -> str:
    """Return the name of the version that has this manifest."""
    return hashlib.sha256(manifest).hexdigest()


def _check_names(files: Mapping[str, object], *, where: str, kind: Kind) -> None:
    strange = sorted(set(files) - set(kind.limits))
    if strange:
        raise IntegrityError(
            f"{where} has files no version may have: {', '.join(map(repr, strange[:5]))}"
        )
    missing = [name for name in kind.required if name not in files]
    if missing:
        raise IntegrityError(f"{where} lacks {' and '.join(missing)}")


def check_payload(
    files: Mapping[str, bytes],
    digest: str,
    *,
    where: str,
    fix: str | None = None,
    kind: Kind = ADAPTER,
) -> None:
    """Check that ``files``, the manifest among them, are exactly the version ``digest``.

    For bytes that came from anywhere: a folder, a DVC cache, a server.

    Raises:
        IntegrityError: names the first file that differs, with what was got and expected.
    """
    if MANIFEST not in files:
        raise IntegrityError(f"{where} lacks {MANIFEST}", fix=fix)
    _check_hash(files[MANIFEST], digest, f"{where}/{MANIFEST}", fix)
    records = parse_manifest(files[MANIFEST], where=f"{where}/{MANIFEST}", kind=kind)
    extra = sorted(set(files) - set(records) - {MANIFEST})
    if extra:
        raise IntegrityError(f"{where}/{extra[0]} is not in the manifest", fix=fix)
    for name, record in records.items():
        if name not in files:
            raise IntegrityError(f"{where}/{name} is missing", fix=fix)
        if len(files[name]) != record.size:
            raise IntegrityError(
                f"{where}/{name} has {len(files[name]):,} bytes, expected {record.size:,}", fix=fix
            )
        _check_hash(files[name], record.sha256, f"{where}/{name}", fix)


def _check_hash(data: bytes, expected: str, where: str, fix: str | None) -> None:
    got = hashlib.sha256(data).hexdigest()
    if got != expected:
        raise IntegrityError(f"{where} has SHA-256 {got}, expected {expected}", fix=fix)


def check_files(directory: Path, digest: str, kind: Kind = ADAPTER) -> dict[str, bytes]:
    """Read the version ``digest`` from its folder, every byte checked.

    Returns:
        the content of each file by name, ``manifest.json`` included; what was checked is what is
        returned, so nothing can change in between.

    Raises:
        IntegrityError: something is missing, extra, linked, too large or altered.
    """
    fix = _require_folder(directory, digest, kind)
    files = read_folder(directory, fix=fix, kind=kind)
    check_payload(files, digest, where=str(directory), fix=fix, kind=kind)
    return files


def check_some(
    directory: Path, digest: str, names: Collection[str]
) -> tuple[dict[str, bytes], dict[str, int]]:
    """Read some files of a version, each checked, and learn the sizes of all of them.

    For lists of many versions: the tensors are neither read nor checked, only that no file is
    missing or of another size.

    Returns:
        the content of those of ``names`` that the version has; the bytes of every file by name.

    Raises:
        IntegrityError: as :func:`check_files`, as far as it was looked.
    """
    fix = _require_folder(directory, digest, ADAPTER)
    manifest = _read_one(directory / MANIFEST, MANIFEST_LIMIT, fix)
    _check_hash(manifest, digest, f"{directory}/{MANIFEST}", fix)
    records = parse_manifest(manifest, where=f"{directory}/{MANIFEST}")
    try:
        with os.scandir(directory) as entries:
            sizes = {entry.name: _size(entry) for entry in entries}
    except OSError as error:
        raise IntegrityError(f"{directory} cannot be read: {error.strerror}", fix=fix) from error
    expected = {MANIFEST: len(manifest)} | {name: record.size for name, record in records.items()}
    wrong = sorted(dict(sizes.items() ^ expected.items()))
    if wrong:
        raise IntegrityError(
            f"{directory}/{wrong[0]} has {sizes.get(wrong[0], 'no')} bytes, expected"
            f" {expected.get(wrong[0], 'no such file')}",
            fix=fix,
        )
    files = {}
    for name in sorted(records.keys() & set(names)):
        files[name] = _read_one(directory / name, FILE_LIMITS[name], fix)
        _check_hash(files[name], records[name].sha256, f"{directory}/{name}", fix)
    return files, dict(sorted(expected.items()))


def read_folder(
    directory: Path, *, fix: str | None = None, kind: Kind = ADAPTER
) -> dict[str, bytes]:
    """Read all files of a folder that holds, or is to become, a version.

    Raises:
        IntegrityError: no such folder, or it has more than plain files of allowed names and sizes.
    """
    try:
        names = sorted(path.name for path in directory.iterdir())
    except OSError as error:
        raise IntegrityError(f"{directory} cannot be read: {error.strerror}", fix=fix) from error
    limits = {**kind.limits, MANIFEST: MANIFEST_LIMIT}
    for name in names:
        if name not in limits:
            raise IntegrityError(f"{directory}/{name} is no file of a version", fix=fix)
    return {name: _read_one(directory / name, limits[name], fix) for name in names}


def _size(entry: os.DirEntry[str]) -> int:
    kept = linked_object(Path(entry.path)) if entry.is_symlink() else None
    return entry.stat(follow_symlinks=kept is not None).st_size


def _require_folder(directory: Path, digest: str, kind: Kind) -> str:
    """Require the folder of a version, and return what mends it if anything in it is wrong.

    Raises:
        IntegrityError: it, the task's or that of all versions is a symbolic link.
        NotPulled: it is not there.
    """
    # The folders of all versions, of the task and of this one.
    for path in (directory, *directory.parents)[kind.versions_path.count("/") + 1 :: -1]:
        if path.is_symlink():  # which DVC does not replace
            name = shlex.quote(str(path))
            raise IntegrityError(f"{path} is a symbolic link", fix=f"rm {name} && adapterbank pull")
    ref = f"{directory.parent.name}@sha256:{digest[:12]}"
    if not directory.exists():
        raise NotPulled(
            f"{directory} is not here: not pulled yet, or deleted", fix=kind.fetch.format(ref=ref)
        )
    return kind.mend.format(ref=ref)


def _read_one(path: Path, limit: int, fix: str | None) -> bytes:
    try:
        return read_file(path, limit=limit)
    except FileNotFoundError as error:
        raise IntegrityError(f"{path} is missing", fix=fix) from error
    except IntegrityError as error:
        raise IntegrityError(error.message, fix=fix) from error
