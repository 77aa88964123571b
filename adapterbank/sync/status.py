"""Where a bank's truths disagree: registry, Git, DVC and MLflow, all compared and none changed.

The registry is right and the others follow, so each difference is told as what the others lack,
with the command that brings them back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, TypeAlias

from adapterbank.errors import AdapterBankError, InputError, IntegrityError, UnknownName
from adapterbank.inference.loads import check_loads
from adapterbank.integrations.dvc.objects import DvcObjects
from adapterbank.integrations.git import (
    git_ignored,
    git_uncommitted,
    git_unmerged,
    mend_conflict,
    told_ignored,
)
from adapterbank.integrations.mlflow.mirror import (
    DIGEST_TAG,
    VERSION_TAG,
    MirroredModel,
    lookup,
    other_models,
    source_uri,
)
from adapterbank.integrations.mlflow.store import displaced_experiments, store_exists
from adapterbank.records import ROUTER
from adapterbank.registry.manifest import MANIFEST, kind_of, md5_of, parse_manifest, version_digest
from adapterbank.registry.store import Registry
from adapterbank.registry.task_record import CHAMPION, PREVIOUS
from adapterbank.registry.versions import Version
from adapterbank.routing.record import read_record
from adapterbank.routing.router import Router
from adapterbank.routing.storage import unpack_router

Manifests: TypeAlias = Mapping[str, tuple[tuple[Version, bytes | None], ...]]
"""The versions of each task whose record can be read, each with its manifest if it is sound."""
Place: TypeAlias = Literal["registry", "router", "git", "dvc", "remote", "mlflow"]
BACKBONE = "registry/backbone"
SYNC = "adapterbank sync"
# The mend of what MLflow has more than the registry: it may be another clone's, so none but its
# owner can say.
UNKNOWN = "git pull, if another clone registered it; or delete it in MLflow"
_REBUILD = "adapterbank router rebuild"
_ROUTING = "routing.safetensors"  # of a version; named here since its owner needs torch
_IN_GIT = ("registry/aliases", "registry/backbone.json", "registry/router.json", "dvc.lock")


@dataclass(frozen=True, kw_only=True)
class Discrepancy:
    """One difference; ``place`` is who does not say what the registry says."""

    place: Place
    task: str | None
    message: str
    fix: str | None

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def find_discrepancies(
    registry: Registry, progress: Callable[[int, int], None] | None = None
) -> tuple[Discrepancy, ...]:
    """Compare everything with everything. Nothing is changed, and no store made by looking.

    Args:
        registry: of the bank; the bank is the folder above it.
        progress: called with the versions verified so far and in all.

    Returns:
        every difference: the registry's own problems first, then the router's, Git's, DVC's and
        MLflow's; a place that cannot be asked is a difference too. Empty if all agree.
    """
    own = [
        Discrepancy(place="registry", task=problem.task, message=problem.message, fix=problem.fix)
        for problem in registry.verify(load=check_loads, progress=progress)
    ]
    versions = _readable(registry)
    return (*own, *_compare_router(registry, versions), *compare_mirrors(registry))


def compare_mirrors(registry: Registry) -> Iterator[Discrepancy]:
    """Compare Git, DVC and MLflow, in this order, with the records and manifests of a registry."""
    versions = _readable(registry)
    mirrors: Mapping[Place, Callable[[Registry, Manifests], Iterator[Discrepancy]]]
    mirrors = {"git": _compare_git, "dvc": _compare_dvc, "mlflow": _compare_mlflow}
    for place, compare in mirrors.items():
        try:
            yield from compare(registry, versions)
        except AdapterBankError as error:
            yield Discrepancy(place=place, task=None, message=error.message, fix=error.fix)


def _readable(registry: Registry) -> Manifests:
    readable = {}
    for task in registry.tasks():
        try:
            versions = registry.versions(task)
        except IntegrityError:
            continue  # named as the registry's own problem
        readable[task] = tuple((version, _manifest(version)) for version in versions)
    return readable


def _manifest(version: Version) -> bytes | None:
    """Read a manifest; None where it is none, which is named as the registry's own problem."""
    try:
        data = (version.path / MANIFEST).read_bytes()
        parse_manifest(data, kind=kind_of(version.task))
    except (IntegrityError, OSError):
        return None
    return data if version_digest(data) == version.digest else None


def _compare_router(registry: Registry, versions: Manifests) -> Iterator[Discrepancy]:
    """Tasks that the served router knows by another record than their champion's, or not at all."""
    try:
        router = registry.resolve(ROUTER)
        files = registry.read(router)
    except (IntegrityError, UnknownName):
        return  # named as the registry's own problem; or nobody routes
    try:
        served = unpack_router(files, where=str(router))
    except IntegrityError as error:  # its bytes are what was published
        yield Discrepancy(place="router", task=None, message=error.message, fix=_REBUILD)
        return
    records = dict(served.sources)
    for task, entries in versions.items():
        if task == served.aside:
            continue
        number = registry.aliases(task).get(CHAMPION)
        champion, manifest = next(
            (entry for entry in entries if entry[0].version == number), (None, None)
        )
        routed = records.pop(task, None)
        if champion is None and routed is not None:
            message = f"{router} has {task}, which has no champion"
            yield Discrepancy(place="router", task=task, message=message, fix=_REBUILD)
        if champion is None or manifest is None:
            continue  # where bytes are not what was published, named as the registry's own problem
        record = parse_manifest(manifest).get(_ROUTING)
        if (None if record is None else record.sha256) != routed:
            message = f"{router} does not have the record of {champion}"
            why = None if record is None else _why_never(champion, served)
            yield Discrepancy(
                place="router",
                task=task,
                message=f"{message}, {why}" if why else message,
                fix=f"dvc repro -f train@{task} && dvc repro" if why else _REBUILD,
            )
    for task in records:
        message = f"{router} has {task}, which the registry has not"
        yield Discrepancy(place="router", task=task, message=message, fix=_REBUILD)


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


def _compare_git(registry: Registry, _: Manifests) -> Iterator[Discrepancy]:
    root = registry.root.parent
    unmerged = git_unmerged(root, *_IN_GIT)
    for name in unmerged:
        yield _of_git(
            name, f"{name} is in conflict: Git could not merge it", mend_conflict(root, name)
        )
    for name in git_uncommitted(root, *_IN_GIT):
        if name not in unmerged:
            yield _of_git(name, f"{name} is not committed", f"git add {name} && git commit")
    files = [path for path in (root / _IN_GIT[0]).glob("*.json") if path.is_file()]
    files += [path for path in map(root.joinpath, _IN_GIT[1:]) if path.is_file()]
    names = [path.relative_to(root).as_posix() for path in files]
    for name, rule in git_ignored(root, *sorted(names)).items():
        yield _of_git(name, told_ignored(name, rule), f"git add --force {name} && git commit")


def _of_git(name: str, message: str, fix: str) -> Discrepancy:
    path = PurePosixPath(name)
    task = path.stem if path.parent.name == "aliases" else None
    return Discrepancy(place="git", task=task, message=message, fix=fix)


def _compare_dvc(registry: Registry, versions: Manifests) -> Iterator[Discrepancy]:
    with DvcObjects(registry.root.parent) as objects:
        if not objects.in_use:
            return
        yield from _compare_backbone(objects, registry)
        for task, entries in versions.items():
            locked = objects.locked(f"registry/{kind_of(task).versions(task)}") or {}
            for version, manifest in entries:
                if manifest is not None:  # else named as the registry's own problem
                    yield from _compare_objects(objects, locked, version, manifest)


def _compare_backbone(objects: DvcObjects, registry: Registry) -> Iterator[Discrepancy]:
    """Whether DVC keeps the backbone at all; its bytes have a fingerprint of their own."""
    if not registry.backbone_weights.is_file():
        return
    md5 = (objects.locked(BACKBONE) or {}).get(registry.backbone_weights.name)
    if md5 is None or not objects.in_cache(md5):
        yield Discrepancy(place="dvc", task=None, message=f"DVC does not keep {BACKBONE}", fix=SYNC)
    elif objects.has_near_remote and not objects.in_remote(md5):
        yield Discrepancy(
            place="remote", task=None, message=f"the DVC remote lacks {BACKBONE}",
            fix="adapterbank push",
        )  # fmt: skip


def _compare_objects(
    objects: DvcObjects, locked: Mapping[str, str], version: Version, manifest: bytes
) -> Iterator[Discrepancy]:
    files = {name: record.md5 for name, record in parse_manifest(manifest).items()}
    files[MANIFEST] = md5_of(manifest)
    if {file: locked.get(f"{version.digest}/{file}") for file in files} != files:
        yield Discrepancy(
            place="dvc", task=version.task, message=f"dvc.lock does not have {version}", fix=SYNC
        )
        return
    stores: list[tuple[Place, str, Callable[[str], bool], str]]
    stores = [("dvc", "cache", objects.in_cache, SYNC)]
    if objects.has_near_remote:
        stores.append(("remote", "remote", objects.in_remote, f"adapterbank push {version}"))
    for place, store, has, fix in stores:
        absent = sorted(file for file, md5 in files.items() if not has(md5))
        if absent:
            names = "" if len(absent) == len(files) else f"{', '.join(absent)} of "
            message = f"the DVC {store} lacks {names}{version}"
            yield Discrepancy(place=place, task=version.task, message=message, fix=fix)


def _compare_mlflow(registry: Registry, versions: Manifests) -> Iterator[Discrepancy]:
    root = registry.root.parent
    if not store_exists(root):
        if any(versions.values()):
            yield Discrepancy(
                place="mlflow", task=None, fix=SYNC,
                message=f"there is no MLflow catalogue: {root / 'mlflow.db'} does not exist",
            )  # fmt: skip
        return
    for experiment in displaced_experiments(root):
        yield Discrepancy(
            place="mlflow", task=None, fix=SYNC,
            message=f"MLflow's experiment {experiment.name!r} was made at another place: its files"
            f" would go to {experiment.artifact_location}",
        )  # fmt: skip
    for task, entries in versions.items():
        model, ours = lookup(root, task), set[str | None]()
        for version, manifest in entries:
            source = None if manifest is None else source_uri(md5_of(manifest))
            for message in _compare_version(model, version, source):
                yield Discrepancy(place="mlflow", task=task, message=message, fix=SYNC)
            ours |= {version.digest, source}
        for shown in model.versions:
            if not ({shown.digest, shown.source} - {None}) & ours:
                message = f"MLflow's version {shown.number} of {task} is none of the registry's"
                yield Discrepancy(place="mlflow", task=task, message=message, fix=UNKNOWN)
        yield from _compare_aliases(registry, model)
    for name in other_models(root, registry.tasks()):
        message = f"MLflow has a model {name!r}, of which the registry has no task"
        yield Discrepancy(place="mlflow", task=name, message=message, fix=UNKNOWN)


def _compare_version(model: MirroredModel, version: Version, source: str | None) -> Iterator[str]:
    shown = model.of(version.digest, source)
    if shown is None:
        yield f"MLflow does not show {version}"
        return
    where, tags = f"MLflow's version {shown.number} of {model.task}", dict(shown.tags)
    for tag, expected in ((DIGEST_TAG, version.digest), (VERSION_TAG, str(version.version))):
        if tags.get(tag) != expected:
            yield f"{where} has the tag {tag} {tags.get(tag)!r}, expected {expected!r}"
    if source is not None and shown.source != source:
        yield f"{where} has the source {shown.source!r}, expected {source!r}"


def _compare_aliases(registry: Registry, model: MirroredModel) -> Iterator[Discrepancy]:
    versions, ours = registry.overview(model.task)
    numbers = {version.digest: version.version for version in versions}
    theirs = dict(model.aliases)
    for alias in sorted({*ours, *theirs}):
        expected, shown = ours.get(alias), theirs.get(alias)
        if shown is not None and shown.digest is None and expected is None:
            continue  # somebody else's alias of somebody else's version
        got = None if shown is None else numbers.get(shown.digest or "")
        if got == expected and (shown is None) == (expected is None):
            continue
        if shown is None:
            state = "missing"
        elif got is None:
            state = f"MLflow's version {shown.number}, which the registry does not know"
        else:
            state = f"version {got}"
        adopt = got is not None and alias != PREVIOUS
        yield Discrepancy(
            place="mlflow",
            task=model.task,
            message=f"{model.task}@{alias} is {state} in MLflow,"
            f" {'missing' if expected is None else f'version {expected}'} in the registry",
            fix="adapterbank sync, which puts MLflow right"
            + ("; adapterbank sync --adopt, if it was moved there on purpose" if adopt else ""),
        )
