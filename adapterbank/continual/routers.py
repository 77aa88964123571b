"""The router as a version: built from the champions' records, published like any adapter."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from adapterbank.errors import UnknownName
from adapterbank.inference.artifact import ROUTING
from adapterbank.records import ROUTER
from adapterbank.registry.manifest import check_some
from adapterbank.registry.store import Registry, Version
from adapterbank.registry.task_record import CHAMPION
from adapterbank.routing.router import build
from adapterbank.routing.statistics import TaskStatistics, read_statistics
from adapterbank.routing.storage import pack_router

__all__ = ["Rebuilt", "champion_records", "rebuild_router"]


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What a rebuild did.

    Args:
        version: the router of the champions as they are; None where no champion has a record.
        published: the version is a new one.
        served: it is what ``predict --task auto`` asks now.
        tasks: those it knows.
        left_out: tasks whose champion has no routing record.
        twins: pairs of tasks of the very same images, which no router can tell apart.
    """

    version: Version | None
    published: bool = False
    served: bool = False
    tasks: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    twins: tuple[tuple[str, str], ...] = ()


def rebuild_router(registry: Registry, *, reason: str, forward: bool = False) -> Rebuilt:
    """Build the router of all champions, publish it, and serve it.

    The same champions give the same bytes on the same machine, and the same bytes are the same
    version: then nothing is written. A router that was served before and rolled back stays back,
    as an adapter does.

    Args:
        registry: an open registry with a backbone.
        reason: for the router's history.
        forward: serve it also where it was rolled back.

    Raises:
        ConflictError: somebody else moved the router meanwhile.
        IntegrityError: a champion or its record is damaged.
        InputError: the records give no router: no class of any task scatters.
    """
    records, sources, left_out = champion_records(registry)
    if not records:
        return Rebuilt(version=None, left_out=left_out)
    fingerprint = registry.backbone().fingerprint
    router = build(records, backbone=fingerprint, sources=sources)
    before, held = _state(registry)
    version = registry.register(ROUTER, pack_router(router), reason=reason)
    stays_back = not forward and version.version != held and _was_taken_back(registry, version)
    if not stays_back:
        ref = f"{ROUTER}@sha256:{version.digest}"
        registry.promote(ref, expected=held, reason=reason)
    return Rebuilt(
        version=version,
        published=version.version > before,
        served=not stays_back,
        tasks=router.tasks,
        left_out=left_out,
        twins=router.twins,
    )


def champion_records(
    registry: Registry,
) -> tuple[dict[str, TaskStatistics], dict[str, str], tuple[str, ...]]:
    """Read the routing records of all champions, each checked against its version's manifest.

    Returns:
        The records by task, their SHA-256 by task, and the tasks whose champion has none.

    Raises:
        IntegrityError: a record is damaged, or none.
    """
    records, sources, left_out = {}, {}, []
    for task in registry.tasks():
        versions, aliases = registry.overview(task)
        if CHAMPION not in aliases:
            continue
        version = versions[aliases[CHAMPION] - 1]
        files, _ = check_some(version.path, version.digest, (ROUTING,))
        if ROUTING not in files:
            left_out.append(task)
            continue
        records[task] = read_statistics(files[ROUTING], where=f"{version}/{ROUTING}")
        sources[task] = hashlib.sha256(files[ROUTING]).hexdigest()
    return records, sources, tuple(left_out)


def _state(registry: Registry) -> tuple[int, int | None]:
    """How many versions the router has, and which is served."""
    try:
        versions, aliases = registry.overview(ROUTER)
    except UnknownName:
        return 0, None
    return len(versions), aliases.get(CHAMPION)


def _was_taken_back(registry: Registry, version: Version) -> bool:
    """Whether a version was served before and the last move of the router was a rollback."""
    moves = [event for event in registry.history(ROUTER) if event.alias == CHAMPION]
    last = moves[-1].action if moves else ""
    return last == "rollback" and version.version in {event.to_version for event in moves}
