"""Let DVC keep versions that were registered by hand, whatever its stages have or have not done."""

from __future__ import annotations

from collections.abc import Iterable

from adapterbank.errors import AdapterBankError, IntegrityError
from adapterbank.integrations.dvc.objects import DvcObjects
from adapterbank.registry.manifest import kind_of, md5_of
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version


def keep_versions(registry: Registry, task: str, versions: Iterable[Version] = ()) -> str | None:
    """Let DVC keep versions of a task that it does not keep yet, where they are whole.

    Only the bytes of the versions are needed: a clone has no ``work/``, and not all versions.

    Args:
        registry: of the bank; the bank is the folder above it.
        task: the task.
        versions: some of its versions; all if empty.

    Returns:
        why DVC does not keep them; None if it does.
    """
    output = f"registry/{kind_of(task).versions(task)}"
    try:
        with DvcObjects(registry.root.parent) as objects:
            lost = objects.has_list(output) and objects.locked(output) is None
            everything = registry.versions(task)
            chosen = everything if lost else tuple(versions) or everything
            missing = [version for version in chosen if not _is_here(registry, version)]
            if lost and missing:
                return f"the list of files of {output} is neither in the cache nor in the remote"
            new = [v for v in chosen if v not in missing and not is_kept(objects, registry, v)]
            if new:
                folders = [version.path for version in new]
                objects.keep(f"register@{task}", output, folders, anew=lost)
    except AdapterBankError as error:
        return error.message
    return None


def is_kept(objects: DvcObjects, registry: Registry, version: Version) -> bool:
    """Return whether ``dvc.lock`` and the cache have every file of a version as it is."""
    listed = objects.locked(f"registry/{kind_of(version.task).versions(version.task)}") or {}
    return all(
        listed.get(f"{version.digest}/{name}") == (md5 := md5_of(data)) and objects.in_cache(md5)
        for name, data in registry.read(version).items()
    )


def _is_here(registry: Registry, version: Version) -> bool:
    try:
        registry.read(version)
    except IntegrityError:
        return False
    return True
