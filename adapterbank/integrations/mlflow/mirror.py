"""The registry's versions and aliases, as people see them in MLflow.

The registry is right and MLflow follows. MLflow numbers versions by itself, so its numbers may
differ from ours; what links the two is the tag ``adapterbank.digest`` (``adapterbank.version``
is our number, for people). Bytes are not copied: the source ``dvc://md5/<hash>`` names the
manifest, which names every file, and stays true wherever the bank is moved.

All functions are idempotent. The bank's tracking lock makes them so for all processes of one
machine; where two machines mirror one version at once there may be two copies of it, which
``lookup`` shows and everything else treats as one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from adapterbank.errors import InputError, UnknownName
from adapterbank.integrations.mlflow.store import (
    is_elsewhere,
    open_client,
    reported,
    store_exists,
    store_lock,
)
from adapterbank.records import check_alias_name, check_task_name

VERSION_TAG: Final = "adapterbank.version"
DIGEST_TAG: Final = "adapterbank.digest"

_HEX: Final = {"digest": re.compile(r"[0-9a-f]{64}"), "md5": re.compile(r"[0-9a-f]{32}")}
_PAGE: Final = 1000
_KIND: Final = "adapter"  # the tag of models that a bank made
_ALIAS_ATTEMPTS: Final = 4
_ABSENT: Final = "RESOURCE_DOES_NOT_EXIST"


@dataclass(frozen=True, kw_only=True)
class MirroredVersion:
    """One model version of MLflow; ``digest`` and ``version`` are None if it is not ours."""

    number: int  # MLflow's
    version: int | None  # ours
    digest: str | None
    source: str
    run_id: str | None
    tags: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class MirroredModel:
    """What MLflow knows of a task."""

    task: str
    versions: tuple[MirroredVersion, ...]  # by MLflow's number
    aliases: tuple[tuple[str, MirroredVersion], ...]  # by alias

    def of(self, digest: str, source: str | None = None) -> MirroredVersion | None:
        """Return the (first) mirror of a version: by its digest or, if that was edited, source."""
        by_digest = next((mirror for mirror in self.versions if mirror.digest == digest), None)
        if by_digest is not None or source is None:
            return by_digest
        return next((mirror for mirror in self.versions if mirror.source == source), None)

    def aliased(self, alias: str) -> MirroredVersion | None:
        """Return what an alias stands on."""
        return dict(self.aliases).get(alias)


def source_uri(manifest_md5: str) -> str:
    """Return the address of a version's bytes that both SQLite and a server accept."""
    return f"dvc://md5/{_checked('md5', manifest_md5)}"


def mirror_version(
    root: Path,
    task: str,
    version_number: int,
    digest: str,
    manifest_md5: str,
    tags: Mapping[str, str],
    run_id: str | None = None,
) -> int:
    """Show one version of the registry in MLflow, or mend how it is shown.

    Where the tag with the digest was edited, the source tells which it is. A source that was
    edited cannot be: MLflow lets nobody change one, so the version is made anew, without aliases.

    Args:
        root: the bank.
        task: the registered model's name.
        version_number: our number of the version.
        digest: what names the version everywhere.
        manifest_md5: where DVC keeps its manifest.
        tags: what else to show: backbone fingerprint, Git revision, accuracy.
        run_id: the run that made it; left out if MLflow has no such run.

    Returns:
        MLflow's number of the version.

    Raises:
        AdapterBankError: the store refused or did not answer.
    """
    check_task_name(task)
    source = source_uri(manifest_md5)
    ours = {VERSION_TAG: str(version_number), DIGEST_TAG: _checked("digest", digest)}
    wanted = dict(tags) | ours
    with reported(root):
        client = open_client(root)
        with store_lock(root):
            shown = _first(
                _search(client, task, f"tags.`{DIGEST_TAG}` = '{digest}'")
                or _search(client, task, f"source_path = '{source}'")
            )
            if shown is not None and shown.source != source:
                client.delete_model_version(task, str(shown.version))
                shown = None
            if shown is None:
                with _unless("RESOURCE_ALREADY_EXISTS"):
                    client.create_registered_model(task, tags={"kind": _KIND})
                shown = client.create_model_version(
                    task, source=source, run_id=_existing(client, run_id), tags=wanted
                )
            for name, value in wanted.items():
                if shown.tags.get(name) != value:
                    client.set_model_version_tag(task, str(shown.version), name, value)
    return int(shown.version)


def mirror_alias(root: Path, task: str, alias: str, digest: str | None) -> None:
    """Let an alias of MLflow stand where the registry's does.

    Args:
        root: the bank.
        task: the registered model's name.
        alias: one of the registry's.
        digest: the version it stands on; None takes the alias away.

    Raises:
        InputError: a name that MLflow keeps for itself (``latest``, ``v1``).
        UnknownName: the version was never mirrored.
        AdapterBankError: the store refused or did not answer.
    """
    check_task_name(task)
    check_alias_name(alias)
    with reported(root):
        client = open_client(root)
        with store_lock(root):
            if digest is None:
                with _unless(_ABSENT):
                    client.delete_registered_model_alias(task, alias)
                return
            wanted = f"tags.`{DIGEST_TAG}` = '{_checked('digest', digest)}'"
            shown = _first(_search(client, task, wanted))
            if shown is None:
                raise UnknownName("MLflow version", f"{task}@sha256:{digest}")
            if _alias_numbers(client, task).get(alias) != int(shown.version):
                _set_alias(client, task, alias, int(shown.version))


def lookup(root: Path, task: str) -> MirroredModel:
    """Return a task as MLflow sees it, empty if MLflow has never heard of it.

    Raises:
        AdapterBankError: the store did not answer.
    """
    check_task_name(task)
    if not store_exists(root):
        return MirroredModel(task=task, versions=(), aliases=())  # asking must not make one
    with reported(root):
        client = open_client(root)
        versions = {int(entry.version): _mirrored(entry) for entry in _search(client, task)}
        aliases = _alias_numbers(client, task)
    return MirroredModel(
        task=task,
        versions=tuple(versions[number] for number in sorted(versions)),
        # A version deleted between the two questions has no alias either.
        aliases=tuple(
            (alias, versions[number])
            for alias, number in sorted(aliases.items())
            if number in versions
        ),
    )


def other_models(root: Path, tasks: Collection[str]) -> tuple[str, ...]:
    """Return the names of MLflow's models that are none of ``tasks``.

    A server may be shared with others, so there it is only those that a bank made.

    Raises:
        AdapterBankError: the store did not answer.
    """
    shared, names, token = is_elsewhere(root), list[str](), None
    with reported(root):
        client = open_client(root)
        while True:
            page = client.search_registered_models(max_results=_PAGE, page_token=token)
            names += [model.name for model in page if not shared or model.tags.get("kind") == _KIND]
            token = page.token
            if not token:
                return tuple(sorted(set(names) - set(tasks)))


def _search(client: MlflowClient, task: str, condition: str = "") -> list[ModelVersion]:
    # All values have been matched against their alphabets: no quote can end the literal.
    query = f"name = '{task}'{' AND ' if condition else ''}{condition}"
    entries: list[ModelVersion] = []
    token: str | None = None
    while True:
        page = client.search_model_versions(query, max_results=_PAGE, page_token=token)
        entries += page
        token = page.token
        if not token:
            return entries


def _first(entries: list[ModelVersion]) -> ModelVersion | None:
    return min(entries, key=lambda entry: int(entry.version), default=None)


@contextmanager
def _unless(code: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        if error.error_code != code:
            raise


def _existing(client: MlflowClient, run_id: str | None) -> str | None:
    with _unless(_ABSENT):
        return run_id and client.get_run(run_id).info.run_id
    return None


def _alias_numbers(client: MlflowClient, task: str) -> dict[str, int]:
    with _unless(_ABSENT):
        aliases = client.get_registered_model(task).aliases
        return {alias: int(number) for alias, number in aliases.items()}
    return {}


def _set_alias(client: MlflowClient, task: str, alias: str, number: int) -> None:
    for attempt in range(1, _ALIAS_ATTEMPTS + 1):
        try:
            client.set_registered_model_alias(task, alias, str(number))
        except MlflowException:
            # The first setting of one alias by two machines at once fails in one of them.
            if attempt == _ALIAS_ATTEMPTS:
                raise
            time.sleep(0.1 * attempt)
        else:
            return


def _mirrored(entry: ModelVersion) -> MirroredVersion:
    number = entry.tags.get(VERSION_TAG, "")
    digest = entry.tags.get(DIGEST_TAG, "")
    return MirroredVersion(
        number=int(entry.version),
        version=int(number) if number.isascii() and number.isdigit() else None,
        digest=digest if _HEX["digest"].fullmatch(digest) else None,
        source=entry.source or "",
        run_id=entry.run_id or None,
        tags=tuple(sorted(entry.tags.items())),
    )


def _checked(kind: str, value: str) -> str:
    if not _HEX[kind].fullmatch(value):
        raise InputError(f"{value!r} is not a {kind} in lower-case hexadecimal digits")
    return value
