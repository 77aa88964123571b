"""The router as a version: built from the champions' records, published like any adapter."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from adapterbank.errors import InputError, UnknownName
from adapterbank.inference.artifact import ROUTING
from adapterbank.policies import RouterConfig
from adapterbank.records import ROUTER
from adapterbank.registry.manifest import check_some
from adapterbank.registry.store import Registry, Version
from adapterbank.registry.task_record import CHAMPION
from adapterbank.routing.router import Router, RouterSettings, build
from adapterbank.routing.statistics import RoutingRecord, read_record
from adapterbank.routing.storage import pack_router

__all__ = [
    "ChampionRecords",
    "Rebuilt",
    "RouterPlan",
    "champion_records",
    "champions",
    "read_routing",
    "rebuild_router",
]


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What a rebuild did.

    Args:
        version: the router of the champions as they are; None where no champion has a record.
        published: the version is a new one.
        served: it is what ``predict --task auto`` asks now.
        tasks: those it knows.
        left_out: tasks whose champion has no routing record that can be read.
        twins: pairs of tasks of the very same images, which no router can tell apart.
    """

    version: Version | None
    published: bool = False
    served: bool = False
    tasks: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    twins: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class RouterPlan:
    """What the routers of a bank are built by, whatever their tasks are.

    Args:
        backbone: fingerprint.
        settings: of every one of them.
        aside: the task of the reference, whose images are nobody's; None where there is none.
        reference: its record.
        source: SHA-256 of that.
    """

    backbone: str
    settings: RouterSettings
    aside: str | None = None
    reference: RoutingRecord | None = None
    source: str = ""

    @classmethod
    def of(cls, registry: Registry, config: RouterConfig) -> RouterPlan:
        """Read what the configuration names.

        Raises:
            InputError: the reference stores no usable record.
            IntegrityError: the reference's record is damaged.
            UnknownName: there is no such version.
        """
        fingerprint = registry.backbone().fingerprint
        settings = RouterSettings(
            mode="pooled" if config.reference is None else "isolated",
            alpha=config.alpha,
            margin=config.margin,
            cap=config.cap,
        )
        if config.reference is None:
            return cls(backbone=fingerprint, settings=settings)
        version = registry.resolve(config.reference)
        found = read_routing(version)
        if found is None:
            raise InputError(
                f"router.reference is {version}, which stores no {ROUTING}",
                fix="name another version in pipelines/params.yaml",
            )
        record, source = found
        return cls(backbone=fingerprint, settings=settings, aside=version.task, reference=record,
                   source=source)  # fmt: skip

    def build(
        self, records: Mapping[str, RoutingRecord], sources: Mapping[str, str] | None = None
    ) -> Router:
        """Build the router of some tasks, the reference's never one of them.

        Raises:
            BackboneMismatch: records of different backbones, or of no block in common.
            InputError: no task, or nothing that scatters.
        """
        routed = {task: record for task, record in records.items() if task != self.aside}
        return build(
            routed,
            backbone=self.backbone,
            settings=self.settings,
            reference=self.reference,
            sources=sources,
            reference_source=self.source,
            aside=self.aside or "",
        )


def rebuild_router(
    registry: Registry,
    config: RouterConfig | None = None,
    *,
    reason: str,
    forward: bool = False,
) -> Rebuilt:
    """Build the router of all champions, publish it, and serve it.

    The same champions and settings give the same bytes on the same machine, and the same bytes are
    the same version: then nothing is written. A router that was served before and rolled back stays
    back, as an adapter does.

    Args:
        registry: an open registry with a backbone.
        config: how to build it; the defaults if None.
        reason: for the router's history.
        forward: serve it also where it was rolled back.

    Raises:
        ConflictError: somebody else moved the router meanwhile.
        IntegrityError: a champion or its record is damaged.
        InputError: the records give no router: no class of any task scatters.
        UnknownName: the reference is no version of the bank.
    """
    asked = config or RouterConfig()
    found = champion_records(registry, aside=asked.aside)
    if not found.records:
        return Rebuilt(version=None, left_out=found.left_out)
    router = RouterPlan.of(registry, asked).build(found.records, found.sources)
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
        left_out=found.left_out,
        twins=router.twins,
    )


@dataclass(frozen=True, kw_only=True)
class ChampionRecords:
    """The routing records of all champions.

    Args:
        records: by task.
        sources: their SHA-256 by task.
        left_out: tasks whose champion has none, or one that is too old to be read.
    """

    records: Mapping[str, RoutingRecord]
    sources: Mapping[str, str]
    left_out: tuple[str, ...]


def champion_records(registry: Registry, *, aside: str | None = None) -> ChampionRecords:
    """Read the routing records of all champions, each checked against its version's manifest.

    Args:
        registry: an open registry.
        aside: a task to pass over.

    Raises:
        IntegrityError: a record is damaged, or none.
    """
    records, sources, left_out = {}, {}, []
    for version in champions(registry):
        if version.task == aside:
            continue
        try:
            found = read_routing(version)
        except InputError:  # of an earlier layout
            found = None
        if found is None:
            left_out.append(version.task)
        else:
            records[version.task], sources[version.task] = found
    return ChampionRecords(records=records, sources=sources, left_out=tuple(left_out))


def champions(registry: Registry) -> Iterator[Version]:
    """Yield the champion of every task that has one, in the order of names."""
    for task in registry.tasks():
        versions, aliases = registry.overview(task)
        if CHAMPION in aliases:
            yield versions[aliases[CHAMPION] - 1]


def read_routing(version: Version) -> tuple[RoutingRecord, str] | None:
    """Read a version's routing record and its SHA-256; None where it stores none.

    Raises:
        InputError: it was written before records named their blocks.
        IntegrityError: it is not what was published, or no record.
    """
    files, _ = check_some(version.path, version.digest, (ROUTING,))
    if ROUTING not in files:
        return None
    record = read_record(files[ROUTING], where=f"{version}/{ROUTING}")
    return record, hashlib.sha256(files[ROUTING]).hexdigest()


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
