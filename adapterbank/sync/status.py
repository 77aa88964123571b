"""Where a bank's truths disagree: registry, Git, DVC and MLflow, all compared and none changed.

The registry is right and the others follow, so each difference is told as what the others lack,
with the command that brings them back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from adapterbank.errors import AdapterBankError, InputError, IntegrityError, UnknownName
from adapterbank.integrations.dvc.objects import DvcObjects
from adapterbank.integrations.git import git_uncommitted
from adapterbank.integrations.mlflow.mirror import (
    DIGEST_TAG,
    VERSION_TAG,
    MirroredModel,
    MirroredVersion,
    lookup,
    source_uri,
)
from adapterbank.integrations.mlflow.store import store_exists
from adapterbank.records import ROUTER
from adapterbank.registry.manifest import MANIFEST, parse_manifest
from adapterbank.registry.store import Registry
from adapterbank.registry.task_record import CHAMPION, PREVIOUS
from adapterbank.registry.versions import Version
from adapterbank.routing.router import Router
from adapterbank.routing.statistics import read_record
from adapterbank.routing.storage import unpack_router

Place: TypeAlias = Literal["registry", "router", "git", "dvc", "remote", "mlflow"]
BACKBONE = "registry/backbone"
# The mend of what MLflow has more than the registry: it may be another clone's, so none but its
# owner can say.
UNKNOWN = "git pull, if another clone registered it; or delete it in MLflow"
_REBUILD = "adapterbank router rebuild"
_ROUTING = "routing.safetensors"  # of a version; named here since its owner needs torch
_IN_GIT = ("registry/aliases", "registry/backbone.json", "registry/router.json", "dvc.lock")


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One difference; ``place`` is who does not say what the registry says."""

    place: Place
    task: str | None
    message: str
    fix: str | None

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def find_drift(
    registry: Registry, progress: Callable[[int, int], None] | None = None
) -> tuple[Drift, ...]:
    """Compare everything with everything. Nothing is changed, and no store made by looking.

    Args:
        registry: of the bank; the bank is the folder above it.
        progress: called with the versions verified so far and in all.

    Returns:
        every difference: the registry's own problems first, then the router's, Git's, DVC's and
        MLflow's; a place that cannot be asked is a difference too. Empty if all agree.
    """
    found = [
        Drift(place="registry", task=problem.task, message=problem.message, fix=problem.fix)
        for problem in registry.verify(progress=progress)
    ]
    versions = _readable(registry)
    found += _router_drift(registry, versions)
    found += _git_drift(registry)
    try:
        found += _dvc_drift(registry, versions)
    except AdapterBankError as error:
        found.append(Drift(place="dvc", task=None, message=error.message, fix=error.fix))
    try:
        found += _mlflow_drift(registry, versions)
    except AdapterBankError as error:
        found.append(Drift(place="mlflow", task=None, message=error.message, fix=error.fix))
    return tuple(found)


def shown_of(model: MirroredModel, version: Version, source: str | None) -> MirroredVersion | None:
    """Return how MLflow shows a version: by its digest or, if that was edited, by its source."""
    by_digest = model.of(version.digest)
    if by_digest is not None or source is None:
        return by_digest
    return next((one for one in model.versions if one.source == source), None)


def _readable(registry: Registry) -> dict[str, tuple[tuple[Version, bytes | None], ...]]:
    """All versions of the tasks whose record can be read, each with its manifest if it is sound."""
    found = {}
    for task in registry.tasks():
        try:
            versions = registry.versions(task)
        except IntegrityError:
            continue  # told as the registry's own problem
        found[task] = tuple((version, _manifest(version)) for version in versions)
    return found


def _manifest(version: Version) -> bytes | None:
    try:
        data = (version.path / MANIFEST).read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == version.digest else None


def _router_drift(
    registry: Registry, versions: Mapping[str, tuple[tuple[Version, bytes | None], ...]]
) -> Iterator[Drift]:
    """Tasks that the served router knows by another record than their champion's, or not at all."""
    try:
        router = registry.resolve(ROUTER)
        files = registry.read(router)
    except (IntegrityError, UnknownName):
        return  # told as the registry's own problem; or nobody routes
    try:
        served = unpack_router(files, where=str(router))
    except IntegrityError as error:  # its bytes are what was published
        yield Drift(place="router", task=None, message=error.message, fix=_REBUILD)
        return
    records = dict(served.sources)
    for task, entries in versions.items():
        if task == served.aside:
            continue
        number = registry.aliases(task).get(CHAMPION)
        champion, manifest = next(
            (one for one in entries if one[0].version == number), (None, None)
        )
        known = records.pop(task, None)
        if champion is None and known is not None:
            told = f"{router} has {task}, which has no champion"
            yield Drift(place="router", task=task, message=told, fix=_REBUILD)
        if champion is None or manifest is None:
            continue  # where bytes are not what was published, told as the registry's own problem
        record = parse_manifest(manifest).get(_ROUTING)
        if (None if record is None else record.sha256) != known:
            told = f"{router} does not have the record of {champion}"
            why = None if record is None else _why_never(champion, served)
            yield Drift(
                place="router",
                task=task,
                message=f"{told}, {why}" if why else told,
                fix=f"dvc repro -f train@{task} && dvc repro" if why else _REBUILD,
            )
    for task in records:
        message = f"{router} has {task}, which the registry has not"
        yield Drift(place="router", task=task, message=message, fix=_REBUILD)


def _why_never(version: Version, served: Router) -> str | None:
    """Why no rebuild takes a version's record in; None where one does, or its bytes are wrong."""
    try:
        record = read_record((version.path / _ROUTING).read_bytes(), where=_ROUTING)
    except InputError:
        return "which was written before records named their blocks"
    except (IntegrityError, OSError):
        return None
    if served.aside and not set(served.blocks) <= set(record.blocks):
        return "which is of other blocks than its reference"
    return None


def _git_drift(registry: Registry) -> list[Drift]:
    return [
        Drift(
            place="git",
            task=name.removeprefix("registry/aliases/").removesuffix(".json")
            if name.startswith("registry/aliases/")
            else None,
            message=f"{name} is not committed",
            fix=f"git add {name} && git commit",
        )
        for name in git_uncommitted(registry.root.parent, *_IN_GIT)
    ]


def _dvc_drift(
    registry: Registry, versions: Mapping[str, tuple[tuple[Version, bytes | None], ...]]
) -> list[Drift]:
    found: list[Drift] = []
    with DvcObjects(registry.root.parent) as objects:
        if not objects.in_use:
            return []
        found += _backbone_drift(objects, registry)
        for task, entries in versions.items():
            locked = objects.locked(f"registry/adapters/{task}") or {}
            for version, manifest in entries:
                found += _kept_drift(objects, locked, version, manifest)
    return found


def _backbone_drift(objects: DvcObjects, registry: Registry) -> Iterator[Drift]:
    """Whether DVC keeps the backbone at all; its bytes have a fingerprint of their own."""
    if not registry.backbone_weights.is_file():
        return
    md5 = (objects.locked(BACKBONE) or {}).get(registry.backbone_weights.name)
    if md5 is None or not objects.in_cache(md5):
        yield Drift(place="dvc", task=None, message=f"DVC does not keep {BACKBONE}",
                    fix="adapterbank sync")  # fmt: skip
    elif objects.has_near_remote and not objects.in_remote(md5):
        yield Drift(place="remote", task=None, message=f"the DVC remote lacks {BACKBONE}",
                    fix="adapterbank push")  # fmt: skip


def _kept_drift(
    objects: DvcObjects, locked: Mapping[str, str], version: Version, manifest: bytes | None
) -> Iterator[Drift]:
    if manifest is None:
        return  # what DVC should have cannot be known; the registry's own problem tells why
    files = {name: record.md5 for name, record in parse_manifest(manifest).items()}
    files[MANIFEST] = _md5(manifest)
    name = str(version)
    if {file: locked.get(f"{version.digest}/{file}") for file in files} != files:
        yield Drift(place="dvc", task=version.task, message=f"dvc.lock does not have {name}",
                    fix="adapterbank sync")  # fmt: skip
        return
    missing = [file for file, md5 in files.items() if not objects.in_cache(md5)]
    if missing:
        yield Drift(
            place="dvc", task=version.task,
            message=f"the DVC cache lacks {_told(missing, files, name)}",
            fix=f"dvc commit --force register@{version.task}",
        )  # fmt: skip
    if objects.has_near_remote:
        absent = [file for file, md5 in files.items() if not objects.in_remote(md5)]
        if absent:
            yield Drift(
                place="remote", task=version.task,
                message=f"the DVC remote lacks {_told(absent, files, name)}",
                fix=f"adapterbank push {name}",
            )  # fmt: skip


def _mlflow_drift(
    registry: Registry, versions: Mapping[str, tuple[tuple[Version, bytes | None], ...]]
) -> list[Drift]:
    root, found = registry.root.parent, []
    if not store_exists(root):
        if any(versions.values()):
            found.append(Drift(
                place="mlflow", task=None, fix="adapterbank sync",
                message=f"there is no MLflow catalogue: {root / 'mlflow.db'} does not exist",
            ))  # fmt: skip
        return found
    for task, entries in versions.items():
        model, known = lookup(root, task), set[int]()
        for version, manifest in entries:
            source = None if manifest is None else source_uri(_md5(manifest))
            shown = shown_of(model, version, source)
            known |= set() if shown is None else {shown.number}
            found += [
                Drift(place="mlflow", task=task, message=message, fix="adapterbank sync")
                for message in _version_drift(model, version, source)
            ]
        found += [
            Drift(
                place="mlflow", task=task, fix=UNKNOWN,
                message=f"MLflow's version {shown.number} of {task} is none of the registry's",
            )
            for shown in _unknown(model, [version.digest for version, _ in entries], known)
        ]  # fmt: skip
        found += _alias_drift(registry, model)
    return found


def _unknown(
    model: MirroredModel, digests: Collection[str], shown: Collection[int]
) -> Iterator[MirroredVersion]:
    """What says it is a version of a bank, and of which the registry has never heard."""
    for one in model.versions:
        if one.digest is not None and one.digest not in digests and one.number not in shown:
            yield one


def _version_drift(model: MirroredModel, version: Version, source: str | None) -> Iterator[str]:
    shown = shown_of(model, version, source)
    if shown is None:
        yield f"MLflow does not show {version}"
        return
    where, tags = f"MLflow's version {shown.number} of {model.task}", dict(shown.tags)
    for tag, expected in ((DIGEST_TAG, version.digest), (VERSION_TAG, str(version.version))):
        if tags.get(tag) != expected:
            yield f"{where} has the tag {tag} {tags.get(tag)!r}, expected {expected!r}"
    if source is not None and shown.source != source:
        yield f"{where} has the source {shown.source!r}, expected {source!r}"


def _alias_drift(registry: Registry, model: MirroredModel) -> Iterator[Drift]:
    numbers = {version.digest: version.version for version in registry.versions(model.task)}
    ours = registry.aliases(model.task)
    theirs = dict(model.aliases)
    for alias in sorted({*ours, *theirs}):
        expected, shown = ours.get(alias), theirs.get(alias)
        if shown is not None and shown.digest is None and expected is None:
            continue  # somebody else's alias of somebody else's version
        got = None if shown is None else numbers.get(shown.digest or "")
        if got == expected and (shown is None) == (expected is None):
            continue
        if shown is None:
            told = "missing"
        elif got is None:
            told = f"MLflow's version {shown.number}, which the registry does not know"
        else:
            told = f"version {got}"
        adopt = got is not None and alias != PREVIOUS
        yield Drift(
            place="mlflow",
            task=model.task,
            message=f"{model.task}@{alias} is {told} in MLflow,"
            f" {'missing' if expected is None else f'version {expected}'} in the registry",
            fix="adapterbank sync, which puts MLflow right"
            + ("; adapterbank sync --adopt, if it was moved there on purpose" if adopt else ""),
        )


def _told(missing: list[str], files: Mapping[str, str], name: str) -> str:
    return name if len(missing) == len(files) else f"{', '.join(sorted(missing))} of {name}"


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
