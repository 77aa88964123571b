"""Carry versions to and from DVC's default remote: a task, one version, or all there is.

With any of them goes the backbone, without which no version answers; DVC does not copy what is
there already. Alias files are Git's, so what a clone can ask for is what was committed.

Pushing one version carries its whole task. DVC keeps a task as one list of files and takes a list
that is in the remote for complete: with one version pushed alone, a later ``dvc push`` would leave
the others out and say nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from adapterbank.bank.scaffold import install_merge_driver
from adapterbank.errors import AdapterBankError, FetchError, IntegrityError, UnknownName
from adapterbank.integrations.dvc.objects import DvcObjects
from adapterbank.records import ROUTER
from adapterbank.registry.manifest import check_payload, kind_of, md5_of
from adapterbank.registry.publish import save_weights
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from adapterbank.sync.status import BACKBONE


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What was asked for, and how much of it the other side did not have yet."""

    versions: tuple[Version, ...]
    new: tuple[Version, ...]


def push(registry: Registry, ref: str | None = None) -> Transfer:
    """Copy versions to the default remote, each checked before and looked for there afterwards.

    Args:
        registry: of the bank; the bank is the folder above it.
        ref: a task, a version of one (``dtd@3``), or None for everything.

    Raises:
        AdapterBankError: DVC does not keep a version yet, or refused.
        FetchError: there is no default remote.
        IntegrityError: a version's bytes are not what was published; nothing was pushed.
        UnknownName: no such task, version or alias.
    """
    root, versions = registry.root.parent, _chosen(registry, ref)
    with DvcObjects(root) as objects:
        _require_remote(objects, registry)
        versions = tuple(v for v in versions if ref is not None or _is_asked(objects, v))
        md5s = {version: _kept(objects, registry, version) for version in versions}
        absent = objects.absent_in_remote(md5 for files in md5s.values() for md5 in files)
        new = tuple(version for version in versions if not absent.isdisjoint(md5s[version]))
        objects.upload([BACKBONE, *_outputs(versions)])
    return Transfer(versions=versions, new=new)


def pull(registry: Registry, ref: str | None = None) -> Transfer:
    """Bring versions from the default remote into their folders, each whole or not at all.

    What comes is checked before it is put anywhere. A version that is whole already is left alone,
    and so is every version DVC does not know. Where one cannot be had, the others come all the
    same. What DVC's cache has whole needs no remote.

    Args:
        registry: of the bank; the bank is the folder above it.
        ref: a task, a version of one (``dtd@3``), or None for everything.

    Raises:
        AdapterBankError: the remote did not answer, or ``dvc.lock`` does not have a version.
        FetchError: there is no default remote.
        IntegrityError: what the remote has is not what was published, or it lacks a file.
        UnknownName: no such task, version or alias; alias files come by ``git pull``.
    """
    root, versions = registry.root.parent, _chosen(registry, ref)
    install_merge_driver(root)  # a clone has none
    with DvcObjects(root) as objects:
        new = tuple(version for version in versions if not _is_whole(registry, version))
        weights = not registry.backbone_weights.is_file()
        objects.download_lists([*([BACKBONE] if weights else []), *_outputs(new)])
        new = tuple(v for v in new if ref is not None or _is_asked(objects, v))
        lists = {version: _listed(objects, version) for version in new}
        backbone = (objects.locked(BACKBONE) or {}) if weights else {}
        wanted = [*backbone.values(), *(md5 for files in lists.values() for md5 in files.values())]
        if not wanted or not all(map(objects.in_cache, wanted)):
            _require_remote(objects, registry)
        objects.download(wanted)
        problems = []
        steps = [partial(_place_backbone, objects, registry, backbone)] if weights else []
        steps += [partial(_place, objects, registry, version, lists[version]) for version in new]
        for step in steps:
            try:
                step()
            except AdapterBankError as error:
                problems.append(error)
    if problems:
        raise problems[0]
    return Transfer(versions=versions, new=new)


def _chosen(registry: Registry, ref: str | None) -> tuple[Version, ...]:
    if ref is not None and "@" in ref:
        return (registry.resolve(ref),)
    tasks = registry.tasks() if ref is None else (ref,)
    chosen = [version for task in tasks for version in registry.versions(task)]
    if ref is None:
        with suppress(UnknownName):  # a bank without one
            chosen += registry.versions(ROUTER)
    return tuple(chosen)


def _is_asked(objects: DvcObjects, version: Version) -> bool:
    """Whether everything includes a version; a router that DVC does not know is built, not sent."""
    return version.task != ROUTER or bool(_listed(objects, version))


def _output(version: Version) -> str:
    return f"registry/{kind_of(version.task).versions(version.task)}"


def _outputs(versions: tuple[Version, ...]) -> list[str]:
    return list(dict.fromkeys(map(_output, versions)))


def _require_remote(objects: DvcObjects, registry: Registry) -> None:
    if not objects.has_remote:
        root = shlex.quote(str(registry.root.parent))
        raise FetchError(
            f"{registry.root.parent} has no default DVC remote",
            fix=f"cd {root} && dvc remote add --default NAME ADDRESS",
        )


def _kept(objects: DvcObjects, registry: Registry, version: Version) -> tuple[str, ...]:
    """Return the MD5 of each file of a version that is whole and that DVC keeps."""
    files = {name: md5_of(data) for name, data in registry.read(version).items()}
    locked = objects.locked(_output(version)) or {}
    if any(locked.get(f"{version.digest}/{name}") != md5 for name, md5 in files.items()):
        raise AdapterBankError(
            f"dvc.lock does not have {version} yet; nothing was pushed", fix="adapterbank sync"
        )
    return tuple(files.values())


def _listed(objects: DvcObjects, version: Version) -> dict[str, str]:
    """Return the MD5 of each file that DVC has of a version; none if it does not know it."""
    locked = objects.locked(_output(version)) or {}
    prefix = f"{version.digest}/"
    return {
        name.removeprefix(prefix): md5 for name, md5 in locked.items() if name.startswith(prefix)
    }


def _place(
    objects: DvcObjects, registry: Registry, version: Version, listed: Mapping[str, str]
) -> None:
    if not listed:
        raise AdapterBankError(
            f"neither dvc.lock nor what it leads to has {version}",
            fix="git pull, or adapterbank push where it is",
        )
    files = {name: _fetched(objects, md5, f"{name} of {version}") for name, md5 in listed.items()}
    kind = kind_of(version.task)
    check_payload(files, version.digest, where=f"the DVC remote's {version}", kind=kind)
    registry.register(version.task, files)  # which it is: only the bytes are put back


def _place_backbone(objects: DvcObjects, registry: Registry, listed: Mapping[str, str]) -> None:
    weights = registry.backbone_weights
    if weights.name not in listed:
        raise AdapterBankError(
            f"dvc.lock does not have {BACKBONE}", fix="adapterbank backbone fetch"
        )
    data = _fetched(objects, listed[weights.name], f"{BACKBONE}/{weights.name}")
    save_weights(registry.root, data)


def _fetched(objects: DvcObjects, md5: str, what: str) -> bytes:
    data = objects.read(md5)
    if data is None:
        raise IntegrityError(
            f"DVC has no sound {what}: in its cache and remote the object {md5} is missing or"
            " damaged; nothing of it was put into the registry",
            fix="delete it in the remote, then adapterbank push in a bank that has it whole",
        )
    return data


def _is_whole(registry: Registry, version: Version) -> bool:
    try:
        registry.read(version)
    except IntegrityError:
        return False
    return True
