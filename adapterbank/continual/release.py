"""Judge new versions and move aliases: the only stage that changes what a task answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from adapterbank.config import GateConfig
from adapterbank.continual.bank import Bank, write_json
from adapterbank.continual.mirroring import follow_aliases
from adapterbank.continual.routers import rebuild_router
from adapterbank.continual.steps import record_steps
from adapterbank.data.store import load_task, stored_digest
from adapterbank.durable import make_directory
from adapterbank.errors import AdapterBankError, GateRefused, IntegrityError
from adapterbank.inference.artifact import METRICS
from adapterbank.inference.predictor import Predictor
from adapterbank.inference.routing import load_router
from adapterbank.records import ROUTER, Score
from adapterbank.registry.store import ANY, Expected, Move, Registry, Version
from adapterbank.registry.task_record import CHAMPION, REFUSE, RETIRE
from adapterbank.training.evaluation import evaluate

__all__ = ["REPORT", "HandMove", "ReleaseReport", "Verdict", "promote", "release", "rollback"]

REPORT = "reports/release.json"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What ``release`` decided on one task, with the terms and the numbers it decided by."""

    task: str
    version: int
    champion: int | None  # before
    outcome: Literal["promoted", "kept", "refused", "unchanged", "unjudged"]
    reason: str
    challenger_val: Score | None = None
    champion_val: Score | None = None
    gates: dict[str, float] | None = None
    data: str | None = None  # digest of what both were scored on

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ReleaseReport:
    """One release: a verdict for each task, in the order of their names."""

    verdicts: tuple[Verdict, ...]

    @property
    def refused(self) -> tuple[Verdict, ...]:
        """Verdicts that kept a new version from being served."""
        return tuple(v for v in self.verdicts if v.outcome == "refused")


@dataclass(frozen=True, kw_only=True)
class HandMove:
    """A move by hand; ``mirror`` says why MLflow does not show it yet, None where it does."""

    move: Move
    mirror: str | None


def release(
    bank: Bank,
    progress: Callable[[int, int], None] | None = None,
    show: Callable[[ReleaseReport], None] | None = None,
) -> ReleaseReport:
    """Judge each task's newest version once, serve it where it passes, and mirror all aliases.

    First the whole bank is checked: every champion's bytes are verified and its canary replayed,
    so that nothing is released on top of damage. A newest version that has been champion before,
    and was rolled back, stays back; one that was refused stays refused on the same terms.

    Args:
        bank: an open bank.
        progress: called with the tasks judged so far and in all.
        show: gets the report, which is on the disk by then, before anything is raised for it.

    Raises:
        AdapterBankError: a task could not be judged, or MLflow did not follow, so the stage is
            not done; every verdict there is has been carried out.
        GateRefused: the bank itself is not sound; nothing was moved.
        IntegrityError: as above, because stored bytes are not what was published.
    """
    predictor = Predictor(bank.registry)
    tasks = bank.registry.tasks()
    _check_bank(predictor, tasks)
    verdicts, failures = [], []
    for index, task in enumerate(tasks):
        newest, champion = _contest(bank.registry, task)
        try:
            verdicts.append(_judge(bank, predictor, newest, champion))
        except AdapterBankError as error:  # of this task; the others are judged all the same
            reason = f"cannot be judged: {error.message}"
            verdicts.append(Verdict(task=task, version=newest.version, champion=champion,
                                    outcome="unjudged", reason=reason))  # fmt: skip
            failures.append((f"{task} {reason}", error.fix))
        if progress is not None:
            progress(index + 1, len(tasks))
    report = ReleaseReport(verdicts=tuple(verdicts))
    write_json(bank.root / REPORT, {"verdicts": [v.as_json() for v in verdicts]})
    for task in tasks:  # also those that did not move: an earlier mirror may have failed
        problem = follow_aliases(bank, task)
        if problem is not None:
            failures.append((f"MLflow does not show the aliases of {task}: {problem}", None))
    failures += _follow(bank)
    failures += record_steps(bank, predictor)
    if show is not None:
        show(report)
    if failures:
        raise AdapterBankError(
            f"the release is not complete: {'; '.join(message for message, _ in failures)}",
            fix=next((fix for _, fix in failures if fix), "dvc repro release"),
        )
    return report


def _follow(bank: Bank) -> list[tuple[str, str | None]]:
    """Have the router follow the champions; say why it does not."""
    make_directory(bank.registry.root / ROUTER)  # an output of DVC's, if nothing is in it too
    try:
        rebuild_router(bank.registry, reason="release")
    except AdapterBankError as error:
        return [(f"the router does not follow the champions: {error.message}", error.fix)]
    return []


def promote(
    bank: Bank,
    ref: str,
    *,
    alias: str = CHAMPION,
    expected: Expected,
    reason: str = "",
) -> HandMove:
    """Move an alias by hand; the version is verified and replays its canary first.

    A router, which has no canary, is read and checked.

    Raises:
        ConflictError: the alias no longer means ``expected``.
    """
    version = bank.registry.resolve(ref)
    pinned = f"{version.task}@sha256:{version.digest}"  # what ``ref`` means may change meanwhile
    if version.task == ROUTER:
        load_router(bank.registry, pinned)
    else:
        Predictor(bank.registry).load(pinned)
    move = bank.registry.promote(pinned, alias=alias, expected=expected, reason=reason)
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


def _check_bank(predictor: Predictor, tasks: tuple[str, ...]) -> None:
    for task in tasks:
        try:
            if CHAMPION in predictor.registry.aliases(task):
                predictor.load(f"{task}@{CHAMPION}")
        except AdapterBankError as error:
            kind = type(error) if isinstance(error, IntegrityError) else GateRefused
            raise kind(
                f"nothing was released: {task}@{CHAMPION} is not sound: {error.message}",
                fix=error.fix or "adapterbank verify",
            ) from error


def _contest(registry: Registry, task: str) -> tuple[Version, int | None]:
    """The version to judge, and the number of the one that is served."""
    return registry.versions(task)[-1], registry.aliases(task).get(CHAMPION)


def _judge(bank: Bank, predictor: Predictor, newest: Version, champion: int | None) -> Verdict:
    registry, task = bank.registry, newest.task
    verdict = Verdict(task=task, version=newest.version, champion=champion,
                      outcome="unchanged", reason="already the champion")  # fmt: skip
    if champion == newest.version:
        return verdict
    reason = _taken_back(registry, newest)
    if reason is not None:
        return replace(verdict, outcome="kept", reason=reason)
    if task not in bank.config.tasks and not bank.data(task).is_dir():
        reason = "nothing to judge it on: the task is not in pipelines/params.yaml any more"
        return replace(verdict, outcome="kept", reason=reason)
    verdict = replace(verdict, outcome="promoted", reason="passed every gate",
                      gates=bank.config.gates.model_dump(),
                      data=stored_digest(bank.data(task)))  # fmt: skip
    refused = _refused_before(registry, verdict)
    if refused is not None:
        return refused
    challenger_val, champion_val = _val(bank, predictor, newest), None
    if champion is not None:
        champion_val = _val(bank, predictor, registry.resolve(f"{task}@{champion}"))
    verdict = replace(verdict, challenger_val=challenger_val, champion_val=champion_val)
    failure = _failure(bank.config.gates, challenger_val, champion_val)
    if failure is not None:
        verdict = replace(verdict, outcome="refused", reason=failure)
        registry.record_verdict(str(newest), verdict.as_json(), reason=failure)
        return verdict
    registry.promote(str(newest), expected=champion, reason="release", verdict=verdict.as_json())
    return verdict


def _refused_before(registry: Registry, terms: Verdict) -> Verdict | None:
    """The verdict that refused a version on the same terms, if there was one."""
    for event in reversed(registry.history(terms.task)):
        if event.action != REFUSE or event.to_version != terms.version:
            continue
        try:
            verdict = TypeAdapter(Verdict).validate_python(event.verdict)
        except ValidationError:  # not one of a release
            continue
        if (verdict.champion, verdict.gates, verdict.data) == (
            terms.champion, terms.gates, terms.data,
        ):  # fmt: skip
            return verdict
    return None


def _failure(gates: GateConfig, challenger: Score | None, champion: Score | None) -> str | None:
    """Which gate a challenger does not pass, with the numbers; None if it passes all."""
    if challenger is None:
        return "its classes are not those of the prepared data"
    if challenger.accuracy < gates.min_accuracy:
        return (
            f"accuracy {challenger.accuracy:.4f} is below gates.min_accuracy"
            f" {gates.min_accuracy:.4f}"
        )
    if champion is not None and challenger.accuracy < champion.accuracy - gates.max_regression:
        return (
            f"accuracy {challenger.accuracy:.4f} is more than {gates.max_regression:.4f} below"
            f" the champion's {champion.accuracy:.4f} on the same images"
        )
    return None


def _val(bank: Bank, predictor: Predictor, version: Version) -> Score | None:
    """Score a version on the task's validation images as they are prepared now.

    A version that a search led to was trained on them in the end. Its score is that of the trial
    that chose it, the same configuration trained without; see ``continual/tuned.py``.

    Returns:
        None where its classes are not those of the data, so that no comparison means anything.

    Raises:
        InputError: the task has no prepared data.
    """
    data = load_task(bank.data(version.task), spec=predictor.backbone.spec)
    _, loaded = predictor.load(f"{version.task}@{version.version}")
    if loaded.config.classes != data.classes:
        return None
    seen = loaded.config.train.get("fit") == "train+val"
    if seen and loaded.config.data.digest == stored_digest(bank.data(version.task)):
        val = json.loads(bank.registry.read(version)[METRICS])["val"]
        return Score(correct=val["correct"], total=val["total"])
    return evaluate(predictor.backbone, data.val, loaded.folded).score


def _taken_back(registry: Registry, version: Version) -> str | None:
    """Why a version is not to be served although nobody serves another; None if it may be."""
    history = registry.history(version.task)
    deeds = (event.action for event in reversed(history) if event.action != REFUSE)
    if next(deeds, None) == RETIRE:  # nothing was registered or promoted since
        return "the task was removed"
    served = (event.to_version for event in history if event.alias == CHAMPION)
    return "was champion before and was rolled back" if version.version in served else None
