"""Prove that nothing was forgotten: old versions have their bytes and give their answers still.

Adapters share nothing but the frozen backbone, so a bank forgets only if bytes, the backbone or
the libraries change. An audit looks for all three: every version's bytes against its digest, the
backbone's weights against their fingerprint, and the logits of every version's canary against
those it gave when it was published.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from adapterbank import durable
from adapterbank.backbones.loading import pick_device
from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.bank.bank import Bank, write_json
from adapterbank.errors import AdapterBankError, InputError, IntegrityError, UnknownName
from adapterbank.inference.artifact import load_adapter
from adapterbank.inference.canary import check_canary, tolerance
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.records import ROUTER
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.checks import CANARY, check_proof, check_sound
from adapterbank.registry.store import Registry
from adapterbank.registry.task_record import Event
from adapterbank.registry.versions import Version, utc_now
from adapterbank.routing.storage import unpack_router

REPORT = "reports/audit.json"
REGISTER = "register"


@dataclass(frozen=True, kw_only=True)
class AuditedVersion:
    """What an audit found of one version; ``version`` is None where a task's record is damaged."""

    task: str
    version: int | None = None
    digest: str | None = None
    published: str | None = None  # as history states it
    bytes_equal: bool = False
    canary_difference: float | None = None  # of the largest logit; None where it was not replayed
    problem: str | None

    @property
    def name(self) -> str:
        """The version as a reference."""
        return self.task if self.version is None else f"{self.task}@{self.version}"


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """One audit. Two audits of an unchanged bank differ in ``time`` alone."""

    time: str
    before: str | None
    device: torch.device
    backbone: BackboneRecord
    backbone_problem: str | None
    versions: tuple[AuditedVersion, ...]  # by task and number

    @property
    def failed(self) -> tuple[AuditedVersion, ...]:
        """Versions that are not, or cannot be shown to be, as they were published."""
        return tuple(audited for audited in self.versions if audited.problem is not None)

    @property
    def ok(self) -> bool:
        """Whether nothing was forgotten."""
        return self.backbone_problem is None and not self.failed

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "schema": 1,
            "time": self.time,
            "before": self.before,
            "ok": self.ok,
            "checked": len(self.versions),
            "failed": len(self.failed),
            "device": self.device.type,
            "tolerance": tolerance(self.device),
            "backbone": {
                "uri": self.backbone.uri,
                "fingerprint": self.backbone.fingerprint,
                "problem": self.backbone_problem,
            },
            "versions": [asdict(audited) for audited in self.versions],
        }


def audit(
    bank: Bank,
    *,
    before: str | None = None,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    clock: Callable[[], str] = utc_now,
) -> AuditReport:
    """Check all versions, or those published before a moment, and write ``reports/audit.json``.

    Args:
        bank: an open bank; only the report is written.
        before: a time (ISO 8601; UTC where it names no zone), or a version such as ``dtd@3``:
            then its task's earlier versions, and whatever other tasks had by the same second.
        device: where the canaries are replayed; the bank's device if None.
        progress: called with the versions checked so far and in all.
        clock: tells the time for the report.

    Returns:
        the report, which is on the disk.

    Raises:
        FetchError: the bank has no backbone yet.
        InputError: ``before`` is neither, the machine has no such device, or the backbone's weights
            are not on this machine.
        UnknownName: ``before`` is a version there is none of.
    """
    place = pick_device(device or bank.config.device)
    record = bank.registry.backbone()
    chosen, damaged = _choose(bank.registry, _moment(bank.registry, before))
    backbone, problem = None, None
    try:
        backbone = load_bank_backbone(bank.registry, place)
    except IntegrityError as error:
        problem = error.message
    audited = list(damaged)
    for number, (version, event) in enumerate(chosen, start=1):
        audited.append(_check(bank.registry, version, event, record, backbone))
        if progress is not None:
            progress(number, len(chosen))
    report = AuditReport(
        time=clock(),
        before=before,
        device=place,
        backbone=record,
        backbone_problem=problem,
        versions=tuple(sorted(audited, key=lambda entry: (entry.task, entry.version or 0))),
    )
    with durable.writable(bank.root / "reports"):
        write_json(bank.root / REPORT, report.as_json())
    return report


@dataclass(frozen=True, kw_only=True)
class _Moment:
    time: datetime
    version: Version | None  # the one that was published then, where that was how it was named

    def precedes(self, version: Version, event: Event) -> bool:
        if self.version is None:
            return _time(event.time) < self.time
        if version.task == self.version.task:  # numbers tell the order; clocks jump
            return version.version < self.version.version
        return _time(event.time) <= self.time


def _moment(registry: Registry, before: str | None) -> _Moment | None:
    if before is None:
        return None
    if "@" in before:
        version = registry.resolve(before)
        return _Moment(time=_time(_published(registry, version.task)[version.version].time),
                       version=version)  # fmt: skip
    try:
        return _Moment(time=_time(before), version=None)
    except ValueError as error:
        raise InputError(
            f"{before!r} is no moment: expected a time such as 2026-03-01 or"
            " 2026-03-01T12:00:00Z, or a version such as dtd@3",
            fix="adapterbank history TASK, which shows times and versions",
        ) from error


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _published(registry: Registry, task: str) -> dict[int, Event]:
    """The event that published each version of a task."""
    return {
        event.to_version: event
        for event in registry.history(task)
        if event.action == REGISTER and event.to_version is not None
    }


def _choose(
    registry: Registry, moment: _Moment | None
) -> tuple[list[tuple[Version, Event | None]], list[AuditedVersion]]:
    """Versions to check, and the tasks whose records cannot tell which those are."""
    chosen: list[tuple[Version, Event | None]] = []
    damaged = []
    for task in registry.names():
        try:
            events = _published(registry, task)
            for version in registry.versions(task):
                event = events.get(version.version)
                # One that history says nothing of is checked: rather too many than too few.
                if moment is None or event is None or moment.precedes(version, event):
                    chosen.append((version, event))
        except UnknownName:  # a router that was killed before it had a version
            continue
        except (IntegrityError, ValueError) as error:  # ValueError: a time that is none
            message = error.message if isinstance(error, IntegrityError) else str(error)
            damaged.append(AuditedVersion(task=task, problem=message))
    return chosen, damaged


def _check(
    registry: Registry,
    version: Version,
    event: Event | None,
    record: BackboneRecord,
    backbone: TimmViT | None,
) -> AuditedVersion:
    equal, difference, problem = False, None, None
    try:
        files = registry.read(version)
        equal = True
        check_sound(version.task, files, record, where=str(version))
        if version.task == ROUTER:
            unpack_router(files, where=str(version))
        elif backbone is None:
            problem = "its canary cannot be replayed: the backbone is not what it was"
        else:
            check_proof(files, where=str(version))
            loaded = load_adapter(files, backbone, where=str(version), canary=False)
            difference = check_canary(backbone, loaded.folded, files[CANARY], where=str(version))
    except AdapterBankError as error:
        problem = error.message
    return AuditedVersion(
        task=version.task,
        version=version.version,
        digest=version.digest,
        published=None if event is None else event.time,
        bytes_equal=equal,
        canary_difference=difference,
        problem=problem,
    )
