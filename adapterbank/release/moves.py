"""Publish versions and move aliases by hand: what the pipeline does, a person may do as well."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from adapterbank.bank.bank import Bank
from adapterbank.bank.mirror import follow_aliases
from adapterbank.errors import GateRefused, InputError, IntegrityError
from adapterbank.inference.artifact import ADAPTER_CONFIG, load_adapter
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.records import ROUTER
from adapterbank.registry.adapter_config import parse_adapter_config
from adapterbank.registry.aliases import ANY, Expected
from adapterbank.registry.checks import check_sound
from adapterbank.registry.manifest import MANIFEST, build_manifest, check_some, read_folder
from adapterbank.registry.task_record import CHAMPION, Event
from adapterbank.registry.verdicts import ClassChange, Verdict, parse_verdict, standing_refusal
from adapterbank.registry.versions import Move, Version
from adapterbank.release.fresh import class_change
from adapterbank.routing.storage import unpack_router


@dataclass(frozen=True, kw_only=True)
class HandMove:
    """A move by hand; ``mirror`` says why MLflow does not show it yet, None where it does."""

    move: Move
    mirror: str | None


def register(bank: Bank, directory: Path, task: str) -> Version:
    """Publish a folder as a version, if it answers what it says it answered.

    Raises:
        FetchError: the bank has no backbone yet.
        InputError: the backbone's weights are not on this machine.
        IntegrityError: the files make no version that would be served: a method that cannot load
            them, no canary, or another answer to it.
    """
    files = read_folder(directory)
    if task != ROUTER:
        build_manifest({name: data for name, data in files.items() if name != MANIFEST})
        where = str(directory)
        check_sound(task, files, bank.registry.backbone(), where=where)
        load_adapter(files, load_bank_backbone(bank.registry, bank.config.device), where=where)
    return bank.registry.register(task, files, reason="registered by hand")


def promote(  # noqa: PLR0913  # as many as the command has options
    bank: Bank,
    ref: str,
    *,
    alias: str = CHAMPION,
    expected: Expected,
    reason: str = "",
    force: bool = False,
    accept_classes: bool = False,
    device: str | None = None,
) -> HandMove:
    """Move an alias by hand; the version is verified and replays its canary first.

    A router, which has no canary, is read and checked. What the last verdict refused becomes no
    champion unless it is forced, or was refused for nothing but its classes and those are accepted;
    then that is a verdict of its own, which says over which one. What was not judged becomes no
    champion either if its classes are not the champion's, unless that is accepted or forced.
    The canary is replayed on ``device``, or on the bank's device if None.

    Raises:
        ConflictError: the alias no longer means ``expected``.
        GateRefused: the last verdict on the version refused it, and ``force`` is not set; or its
            classes are others, and nobody accepts that.
        InputError: it is forced without a reason.
    """
    if force and not reason.strip():
        raise InputError(
            "a refused version is promoted by force only for a reason, which history keeps",
            fix=f'adapterbank promote {ref} --force --reason "WHY"',
        )
    version = bank.registry.resolve(ref)
    refusal = _refusal(bank, version, alias)
    change = None if force or accept_classes else _class_change(bank, version, alias)
    if refusal is not None and not force and not (accept_classes and _of_classes(refusal)):
        raise GateRefused(
            f"{version} was refused at {refusal.time}: {refusal.reason}",
            fix=f"adapterbank promote {ref} --accept-classes" if _of_classes(refusal)
            else f'adapterbank promote {ref} --force --reason "WHY", if you know better',
        )  # fmt: skip
    if change is not None:
        raise GateRefused(
            f"{version} has other classes than {version.task}@{CHAMPION}: it {change}",
            fix=f"adapterbank promote {ref} --accept-classes, if that is meant",
        )
    pinned = f"{version.task}@sha256:{version.digest}"  # what ``ref`` means may change meanwhile
    files = bank.registry.read(version)
    if version.task == ROUTER:
        unpack_router(files, where=str(version))
    else:
        backbone = load_bank_backbone(bank.registry, device or bank.config.device)
        load_adapter(files, backbone, where=str(version))
    why = reason or "its classes are accepted"  # without a word only these are
    verdict = None if refusal is None else _forced(version, refusal, why).as_json()
    move = bank.registry.promote(
        pinned, alias=alias, expected=expected, reason=reason, verdict=verdict, files=files
    )
    return HandMove(move=move, mirror=follow_aliases(bank, version.task))


def rollback(
    bank: Bank, task: str, *, alias: str = CHAMPION, expected: Expected = ANY, reason: str = ""
) -> HandMove:
    """Move an alias back to the version it meant before its last move.

    Raises:
        ConflictError: the alias does not mean ``expected``.
    """
    move = bank.registry.rollback(task, alias=alias, expected=expected, reason=reason)
    return HandMove(move=move, mirror=follow_aliases(bank, task))


def _refusal(bank: Bank, version: Version, alias: str) -> Event | None:
    """The refusal that stands against serving a version; trying one under another alias is free."""
    if alias != CHAMPION or version.task == ROUTER:
        return None
    if bank.registry.aliases(version.task).get(CHAMPION) == version.version:
        return None  # nothing would move
    return standing_refusal(bank.registry.history(version.task), version.version)


def _class_change(bank: Bank, version: Version, alias: str) -> ClassChange | None:
    """What a version's classes are to the champion's, where it is to become the champion."""
    if alias != CHAMPION or version.task == ROUTER:
        return None
    present = bank.registry.aliases(version.task).get(CHAMPION)
    if present is None:
        return None
    try:
        before = _classes(bank.registry.resolve(f"{version.task}@{present}"))
    except IntegrityError:  # a damaged champion keeps nobody from serving another version
        return None
    return class_change(before, _classes(version))


def _classes(version: Version) -> tuple[str, ...]:
    files, _ = check_some(version.path, version.digest, (ADAPTER_CONFIG,))
    return parse_adapter_config(files[ADAPTER_CONFIG], where=f"{version}/{ADAPTER_CONFIG}").classes


def _of_classes(refusal: Event) -> bool:
    """Whether a version was refused for nothing but its classes: that gate is told last."""
    verdict = parse_verdict(refusal.verdict)
    return verdict is not None and verdict.gate == "accept_classes"


def _forced(version: Version, refusal: Event, reason: str) -> Verdict:
    """A verdict that overrules a refusal, with the figures of what it overrules."""
    forced = Verdict(task=version.task, version=version.version, champion=None, outcome="forced",
                     reason=reason, over=refusal.step)  # fmt: skip
    over = parse_verdict(refusal.verdict)
    if over is None:  # not one of a release: without figures
        return forced
    return replace(forced, champion=over.champion, gate=over.gate, comparison=over.comparison)
