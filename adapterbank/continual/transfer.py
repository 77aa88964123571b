"""Carry versions to and from DVC's default remote: a task, one version, or all there is.

With any of them goes the backbone, without which no version answers; DVC does not copy what is
there already. Alias files are Git's, so what a clone can ask for is what was committed.

Pushing one version carries its whole task. DVC keeps a task as one list of files and takes a list
that is in the remote for complete: with one version pushed alone, a later ``dvc push`` would leave
the others out and say nothing.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from adapterbank.continual.status import BACKBONE
from adapterbank.errors import AdapterBankError, FetchError, IntegrityError
from adapterbank.integrations.dvc_objects import DvcObjects
from adapterbank.integrations.dvc_repo import pull_outputs, push_outputs
from adapterbank.registry.manifest import FileRecord
from adapterbank.registry.store import Registry, Version

__all__ = ["Transfer", "pull", "push"]


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
        md5s = {version: _kept(objects, registry, version) for version in versions}
        new = tuple(version for version in versions if _absent(objects, md5s[version]))
        push_outputs(root, [BACKBONE, *_targets(versions, whole=True)])
        for md5 in sorted({md5 for version in versions for md5 in md5s[version]}):
            # DVC takes a list that is there for complete, but somebody may have pushed a part.
            if not objects.in_remote(md5):
                objects.upload(md5)
    return Transfer(versions=versions, new=new)


def pull(registry: Registry, ref: str | None = None) -> Transfer:
    """Bring versions from the default remote into their folders, each checked afterwards.

    A version that is whole already is left alone, and so is every version DVC does not know.

    Args:
        registry: of the bank; the bank is the folder above it.
        ref: a task, a version of one (``dtd@3``), or None for everything.

    Raises:
        AdapterBankError: DVC refused, for instance because the remote lacks an object.
        FetchError: there is no default remote.
        IntegrityError: what came is not what was published.
        UnknownName: no such task, version or alias; alias files come by ``git pull``.
    """
    root, versions = registry.root.parent, _chosen(registry, ref)
    with DvcObjects(root) as objects:
        _require_remote(objects, registry)
    new = tuple(version for version in versions if not _is_whole(registry, version))
    # One folder each: DVC would delete from a whole task's what it does not know.
    targets = _targets(new, whole=False)
    if not registry.backbone_weights.is_file():
        targets = [BACKBONE, *targets]
    if targets:
        pull_outputs(root, targets)
    for version in new:
        registry.read(version)
    return Transfer(versions=versions, new=new)


def _chosen(registry: Registry, ref: str | None) -> tuple[Version, ...]:
    if ref is not None and "@" in ref:
        return (registry.resolve(ref),)
    tasks = registry.tasks() if ref is None else (ref,)
    return tuple(version for task in tasks for version in registry.versions(task))


def _targets(versions: tuple[Version, ...], *, whole: bool) -> list[str]:
    folders = [f"registry/adapters/{v.task}" + ("" if whole else f"/{v.digest}") for v in versions]
    return list(dict.fromkeys(folders))


def _require_remote(objects: DvcObjects, registry: Registry) -> None:
    if not objects.has_remote:
        root = shlex.quote(str(registry.root.parent))
        raise FetchError(
            f"{registry.root.parent} has no default DVC remote",
            fix=f"cd {root} && dvc remote add --default NAME ADDRESS",
        )


def _kept(objects: DvcObjects, registry: Registry, version: Version) -> tuple[str, ...]:
    """Return the MD5 of each file of a version that is whole and that DVC keeps."""
    files = {name: FileRecord.of(data).md5 for name, data in registry.read(version).items()}
    locked = objects.locked(f"registry/adapters/{version.task}") or {}
    if any(locked.get(f"{version.digest}/{name}") != md5 for name, md5 in files.items()):
        raise AdapterBankError(
            f"dvc.lock does not have {version} yet; nothing was pushed", fix="adapterbank sync"
        )
    return tuple(files.values())


def _absent(objects: DvcObjects, md5s: tuple[str, ...]) -> bool:
    return not all(objects.in_remote(md5) for md5 in md5s)


def _is_whole(registry: Registry, version: Version) -> bool:
    try:
        registry.read(version)
    except IntegrityError:
        return False
    return True
