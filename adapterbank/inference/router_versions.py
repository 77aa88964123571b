"""The router as a version: built from the champions' records, published like any adapter."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from adapterbank.config.router import RouterConfig
from adapterbank.errors import InputError, UnknownName
from adapterbank.inference.artifact import ROUTING
from adapterbank.inference.champions import champions, read_routing
from adapterbank.model.threads import computing_with
from adapterbank.records import ROUTER
from adapterbank.registry.store import Registry
from adapterbank.registry.task_record import CHAMPION
from adapterbank.registry.versions import Version
from adapterbank.routing.record import RoutingRecord
from adapterbank.routing.router import Router, Yardstick, build, listed
from adapterbank.routing.storage import pack_router

_ROUTERS = 2  # that a plan keeps; one of 1,000 tasks may have 100 MB
_ANOTHER_REFERENCE = "name another version as router.reference in pipelines/params.yaml"


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What a rebuild did."""

    version: Version | None  # of the champions as they are; None where no champion has a record
    published: bool = False  # it is a new one
    served: bool = False  # it is what ``predict --task auto`` asks now
    tasks: tuple[str, ...] = ()
    blocks: tuple[int, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)  # tasks it cannot know, and why
    narrowing: tuple[str, ...] = ()  # tasks whose record is of other blocks: not all can be used
    twins: tuple[tuple[str, str], ...] = ()  # tasks of the very same images

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what should be looked at."""
        sentences = [
            f"{task} is never named, for {why}. Next: dvc repro -f train@{task} && dvc repro"
            for task, why in self.left_out.items()
        ]
        if self.narrowing:
            sentences.append(
                f"The router is of block {listed(self.blocks)} only, which all records have; more"
                f" have {', '.join(self.narrowing)}. Next: train all tasks with the same blocks"
            )
        sentences += [
            f"{task} and {twin} have the same images: they are always ambiguous"
            for task, twin in self.twins
        ]
        return tuple(sentences)


@dataclass(frozen=True, kw_only=True)
class RouterPlan:
    """What the routers of a bank are built by, whatever their tasks are.

    One plan reads each version's record once, and keeps the routers it built last: those of a
    release differ in one task each.
    """

    backbone: str  # fingerprint
    config: RouterConfig  # of every one of them
    yardstick: Yardstick | None = None  # what the configuration names as their reference
    _records: dict[str, tuple[RoutingRecord, str] | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _routers: dict[Hashable, Router] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def aside(self) -> str | None:
        """The task of the reference, whose images are nobody's."""
        return None if self.yardstick is None else self.yardstick.task

    @classmethod
    def of(cls, registry: Registry, config: RouterConfig) -> RouterPlan:
        """Read what the configuration names.

        Raises:
            FetchError: the registry has no backbone yet.
            InputError: the reference stores no usable record.
            IntegrityError: the reference's record is damaged.
            UnknownName: there is no such version.
        """
        fingerprint = registry.backbone().fingerprint
        if config.reference is None:
            return cls(backbone=fingerprint, config=config)
        version = registry.resolve(config.reference)
        try:
            stored = read_routing(version)
        except InputError as error:
            raise InputError(error.message, fix=_ANOTHER_REFERENCE) from error
        if stored is None:
            raise InputError(
                f"router.reference is {version}, which stores no {ROUTING}", fix=_ANOTHER_REFERENCE
            )
        record, source = stored
        yardstick = Yardstick(record=record, source=source, task=version.task)
        return cls(backbone=fingerprint, config=config, yardstick=yardstick)

    def read(self, version: Version) -> tuple[RoutingRecord, str] | None:
        """Read a version's routing record and its SHA-256; None where it stores none.

        Raises:
            InputError: it was written before records named their blocks.
            IntegrityError: it is not what was published, or no record.
        """
        if version.digest not in self._records:
            self._records[version.digest] = read_routing(version)
        return self._records[version.digest]

    def champions(self, registry: Registry) -> ChampionRecords:
        """Read the routing records of all champions but the reference's task.

        Each is checked against its version's manifest. Those that this router cannot be built from
        are left out.

        Raises:
            IntegrityError: a record is damaged, or none.
        """
        records, sources, left_out = {}, {}, {}
        for version in champions(registry):
            task = version.task
            if task == self.aside:
                continue
            try:
                stored = self.read(version)
            except InputError:
                left_out[task] = "its record was written before records named their blocks"
                continue
            why = "it stores no routing record" if stored is None else self.misfit(stored[0])
            if why or stored is None:
                left_out[task] = why
            else:
                records[task], sources[task] = stored
        return ChampionRecords(records=records, sources=sources, left_out=left_out)

    def misfit(self, record: RoutingRecord) -> str:
        """Say why no score of a record can be measured by the reference; "" where it can."""
        needed = () if self.yardstick is None else self.yardstick.record.blocks
        if set(needed) <= set(record.blocks):
            return ""
        return (
            f"its record is of blocks {listed(record.blocks)}, that of the reference of"
            f" {listed(needed)}"
        )

    def build(
        self,
        records: Mapping[str, RoutingRecord],
        sources: Mapping[str, str] | None = None,
        blocks: Sequence[int] | None = None,
    ) -> Router:
        """Build the router of some tasks, the reference's never one of them.

        Args:
            records: by task.
            sources: their SHA-256 by task.
            blocks: those to be of; None: all that can be.

        Raises:
            BackboneMismatch: records of different backbones, or of no block in common.
            InputError: no task, or nothing that scatters.
        """
        key = (
            frozenset(records.items()),  # by identity
            None if sources is None else frozenset(sources.items()),
            None if blocks is None else tuple(blocks),
        )
        if key in self._routers:
            return self._routers[key]
        fitting = {
            task: record
            for task, record in records.items()
            if task != self.aside and not self.misfit(record)
        }
        router = build(
            fitting,
            backbone=self.backbone,
            config=self.config,
            yardstick=self.yardstick,
            sources=sources,
            blocks=blocks,
        )
        while len(self._routers) >= _ROUTERS:
            del self._routers[next(iter(self._routers))]  # the oldest
        self._routers[key] = router
        return router


@dataclass(frozen=True, kw_only=True)
class ChampionRecords:
    """The routing records of all champions, by task."""

    records: Mapping[str, RoutingRecord]
    sources: Mapping[str, str]  # their SHA-256
    left_out: Mapping[str, str]  # why a champion has none that can be used


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
        registry: an open registry; it needs a backbone once there is a champion.
        config: how to build it; the defaults if None.
        reason: for the router's history.
        forward: serve it also where it was rolled back.

    Raises:
        ConflictError: somebody else moved the router meanwhile.
        IntegrityError: a champion or its record is damaged.
        InputError: the records give no router: no class of any task scatters, or there is no task
            but the reference's.
        UnknownName: the reference is no version of the bank.
    """
    if next(champions(registry), None) is None:
        return Rebuilt(version=None)
    plan = RouterPlan.of(registry, config or RouterConfig())
    served = plan.champions(registry)
    if not served.records and plan.aside is None:
        return Rebuilt(version=None, left_out=served.left_out)
    if not served.records:
        raise InputError(
            f"no task but {plan.aside}, by which the router measures, has a usable record",
            fix="adapterbank task add NAME --data FOLDER, or set router.reference to null",
        )
    with computing_with(1):
        router = plan.build(served.records, served.sources)
    count, current = _state(registry)
    version = registry.register(ROUTER, pack_router(router), reason=reason)
    stays_back = not forward and version.version != current and _was_taken_back(registry, version)
    if not stays_back:
        ref = f"{ROUTER}@sha256:{version.digest}"
        registry.promote(ref, expected=current, reason=reason)
    more = {task for task, record in served.records.items() if record.blocks != router.blocks}
    return Rebuilt(
        version=version,
        published=version.version > count,
        served=not stays_back,
        tasks=router.tasks,
        blocks=router.blocks,
        left_out=served.left_out,
        narrowing=tuple(sorted(more)),
        twins=router.twins,
    )


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
