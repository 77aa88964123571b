"""The bytes of a version by the address MLflow has for it: ``dvc://md5/<md5 of manifest.json>``.

MLflow finds this by the entry point ``dvc`` of the group ``mlflow.artifact_repository``, so that
``mlflow.artifacts.download_artifacts("models:/dtd@champion")`` works wherever this package is
installed, and the bytes stay one copy: DVC's or the registry's. Nothing can be written.

A download has one file more than the version: an ``MLmodel``, made on the way, which tells
``mlflow.pyfunc.load_model`` to load the folder by :mod:`adapterbank.integrations.mlflow.model`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Final, NoReturn

import yaml
from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from adapterbank.config.bank import find_bank
from adapterbank.durable import read_file
from adapterbank.errors import AdapterBankError, IntegrityError
from adapterbank.integrations.dvc.objects import DvcObjects
from adapterbank.records import BANK_VARIABLE
from adapterbank.registry.adapter_config import AdapterConfig, parse_adapter_config
from adapterbank.registry.manifest import (
    FILE_LIMITS,
    MANIFEST,
    MANIFEST_LIMIT,
    FileRecord,
    md5_of,
    parse_manifest,
    version_digest,
)

MLMODEL: Final = "MLmodel"
TOP_K: Final = 5  # labels with each answer, if nobody says how many

_ADDRESS: Final = re.compile(r"dvc://md5/([0-9a-f]{32})/?")
_CONFIG: Final = "adapter_config.json"
_LOADER: Final = "adapterbank.integrations.mlflow.model"


def start_of_bank() -> Path:
    """Return where to look for the bank: ``ADAPTERBANK_BANK``, or else the current folder."""
    return Path(os.environ.get(BANK_VARIABLE) or Path.cwd())


class DvcArtifactRepository(ArtifactRepository):
    """All files of one version, read-only, every byte checked by MD5, size and SHA-256.

    The bank is the one at or above ``ADAPTERBANK_BANK``, or else the current folder.
    Objects are looked for in DVC's cache and default remote; if these do not have the manifest,
    the version's folder in the registry is read.

    Args:
        artifact_uri: ``dvc://md5/<md5 of manifest.json>``.
        tracking_uri: MLflow's; not used.
        registry_uri: MLflow's; not used.

    Raises:
        MlflowException: another address, no bank, or nobody has such a manifest.
    """

    def __init__(
        self,
        artifact_uri: str,
        tracking_uri: str | None = None,
        registry_uri: str | None = None,
    ) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        match = _ADDRESS.fullmatch(artifact_uri)
        if match is None:
            raise MlflowException(
                f"{artifact_uri!r} is not dvc://md5/<32 hexadecimal digits>",
                error_code=INVALID_PARAMETER_VALUE,
            )
        self._md5 = match[1]
        try:
            self._root = find_bank(start_of_bank())
            self._objects = DvcObjects(self._root)
            self._folder = self._registered()
            self._manifest = self._bytes(MANIFEST, self._md5, MANIFEST_LIMIT)
            self._files = parse_manifest(self._manifest, where=f"{artifact_uri} ({MANIFEST})")
        except AdapterBankError as error:
            raise MlflowException(str(error), error_code=RESOURCE_DOES_NOT_EXIST) from error

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """List the files of the version, which has no folders, and the ``MLmodel``.

        Raises:
            MlflowException: the version's configuration, which the ``MLmodel`` tells, is damaged.
        """
        if path not in {None, "", "."}:
            return []
        sizes = {name: record.size for name, record in self._files.items()}
        sizes |= {MANIFEST: len(self._manifest), MLMODEL: len(self._content(MLMODEL))}
        return [
            FileInfo(name, False, size)  # noqa: FBT003  # no folder; MLflow's own order
            for name, size in sorted(sizes.items())
        ]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        """Write one file of the version where MLflow wants it."""
        Path(local_path).write_bytes(self._content(remote_file_path.removeprefix("./")))

    def _content(self, name: str) -> bytes:
        """Return one file, every byte checked; the ``MLmodel`` is made from the others."""
        if name == MLMODEL:
            data = self._content(_CONFIG)
            return _mlmodel(parse_adapter_config(data), version_digest(self._manifest))
        record = FileRecord.of(self._manifest) if name == MANIFEST else self._files.get(name)
        if record is None:
            raise MlflowException(
                f"{self.artifact_uri} has no file {name!r}: it has {', '.join(self._files)}",
                error_code=RESOURCE_DOES_NOT_EXIST,
            )
        try:
            limit = FILE_LIMITS.get(name, MANIFEST_LIMIT)
            data = self._bytes(name, record.md5, limit)
            if (got := FileRecord.of(data)) != record:
                raise IntegrityError(
                    f"{self.artifact_uri}: {name} has SHA-256 {got.sha256}, expected"
                    f" {record.sha256}"
                )
        except AdapterBankError as error:
            raise MlflowException(str(error), error_code=RESOURCE_DOES_NOT_EXIST) from error
        return data

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> NoReturn:
        """Refuse, by MlflowException: versions come by ``adapterbank register``."""
        raise _read_only(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> NoReturn:
        """Refuse, by MlflowException: versions come by ``adapterbank register``."""
        raise _read_only(local_dir, artifact_path)

    def _bytes(self, name: str, md5: str, limit: int) -> bytes:
        """Return a file's content, whose MD5 is right."""
        data = self._objects.read(md5)
        if data is not None:
            return data
        if self._folder is None:
            raise AdapterBankError(
                f"{self.artifact_uri}: neither the DVC cache, nor the default remote, nor"
                f" registry/adapters of {self._root} has {name} (MD5 {md5})",
                fix="adapterbank pull, in the bank; or set ADAPTERBANK_BANK to the right bank",
            )
        path, fix = self._folder / name, "adapterbank verify"
        try:
            data = read_file(path, limit=limit)
        except FileNotFoundError as error:
            raise IntegrityError(f"{path} is missing", fix=fix) from error
        if (got := md5_of(data)) != md5:
            raise IntegrityError(f"{path} has MD5 {got}, expected {md5}", fix=fix)
        return data

    def _registered(self) -> Path | None:
        """Find the folder of the registry whose manifest has the MD5."""
        for path in sorted((self._root / "registry" / "adapters").glob(f"*/*/{MANIFEST}")):
            try:
                data = read_file(path, limit=MANIFEST_LIMIT)
            except (FileNotFoundError, IntegrityError):
                continue  # of another version, or reported as missing below
            if md5_of(data) == self._md5:
                return path.parent
        return None


def _mlmodel(config: AdapterConfig, digest: str) -> bytes:
    """Write what MLflow loads a version by; equal versions give equal bytes.

    It states no inputs: MLflow would drop a column it does not know, such as ``task``, with only
    a warning, where the loader refuses it. By hand, because ``mlflow.models`` cannot be imported
    here: MLflow loads this module while it is imported itself.
    """
    params = [
        {"name": "task", "type": "string", "default": config.task, "shape": None},
        {"name": "top_k", "type": "long", "default": TOP_K, "shape": None},
    ]
    flavor: dict[str, str] = {"loader_module": _LOADER}
    if "python" in config.libraries:
        flavor["python_version"] = config.libraries["python"]
    content = {
        "flavors": {"python_function": flavor},
        "signature": {"inputs": None, "outputs": None, "params": json.dumps(params)},
        "metadata": {"adapterbank.digest": digest, "adapterbank.task": config.task},
    }
    return yaml.safe_dump(content, sort_keys=True).encode()


def _read_only(path: str, artifact_path: str | None) -> MlflowException:
    where = f" as {artifact_path}" if artifact_path else ""
    return MlflowException(
        f"cannot log {path}{where}: versions are immutable; publish one by adapterbank register",
        error_code=INVALID_PARAMETER_VALUE,
    )
