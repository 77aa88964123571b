"""Judge new versions and move aliases: the only stage that changes what a task answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from adapterbank.config import GateConfig
from adapterbank.continual.bank import Bank, write_json
from adapterbank.continual.stages import mirror
from adapterbank.data.store import load_task
from adapterbank.errors import AdapterBankError, GateRefused
from adapterbank.inference.predictor import Predictor
from adapterbank.integrations.mlflow_mirror import mirror_alias
from adapterbank.records import Score
from adapterbank.registry.store import Expected, Move, Registry, Version
from adapterbank.registry.task_record import CHAMPION, PREVIOUS
from adapterbank.training.evaluation import evaluate

__all__ = ["REPORT", "ReleaseReport", "Verdict", "promote", "release", "rollback"]

REPORT = "reports/release.json"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What ``release`` decided on one task, with the numbers it decided by."""

    task: str
    version: int
    champion: int | None  # before
    outcome: Literal["promoted", "kept", "refused", "unchanged"]
    reason: str
    challenger_val: Score | None = None
    champion_val: Score | None = None

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


def release(bank: Bank, progress: Callable[[int, int], None] | None = None) -> ReleaseReport:
    """Judge each task's newest version once, and serve it where it passes.

    First the whole bank is checked: every champion's bytes are verified and its canary replayed,
    so that nothing is released on top of damage. A newest version that has been champion before,
    and was rolled back, stays back.

    Raises:
        GateRefused: the bank itself is not sound; nothing was moved.
    """
    predictor = Predictor(bank.registry)
    tasks = bank.registry.tasks()
    _check_bank(predictor, tasks)
    verdicts = []
    for index, task in enumerate(tasks):
        verdicts.append(_judge(bank, predictor, task))
        if progress is not None:
            progress(index + 1, len(tasks))
    report = ReleaseReport(verdicts=tuple(verdicts))
    write_json(bank.root / REPORT, {"verdicts": [v.as_json() for v in verdicts]})
    return report


def promote(
    bank: Bank,
    ref: str,
    *,
    alias: str = CHAMPION,
    expected: Expected,
    reason: str = "",
) -> Move:
    """Move an alias by hand; the registry verifies the version first.

    Raises:
        ConflictError: the alias no longer means ``expected``.
    """
    version = bank.registry.resolve(ref)
    Predictor(bank.registry).load(ref)  # verified, and its canary replayed
    move = bank.registry.promote(ref, alias=alias, expected=expected, reason=reason)
    _mirror_aliases(bank, version.task)
    return move


def rollback(bank: Bank, task: str, *, alias: str = CHAMPION, reason: str = "") -> Move:
    """Move an alias back to the version it meant before its last move."""
    move = bank.registry.rollback(task, alias=alias, reason=reason)
    _mirror_aliases(bank, task)
    return move


def _check_bank(predictor: Predictor, tasks: tuple[str, ...]) -> None:
    for task in tasks:
        if CHAMPION not in predictor.registry.aliases(task):
            continue
        try:
            predictor.load(f"{task}@{CHAMPION}")
        except AdapterBankError as error:
            raise GateRefused(
                f"nothing was released: {task}@{CHAMPION} is not sound: {error}",
                fix="adapterbank verify",
            ) from error


def _judge(bank: Bank, predictor: Predictor, task: str) -> Verdict:
    registry, gates = bank.registry, bank.config.gates
    newest = registry.versions(task)[-1]
    champion = registry.aliases(task).get(CHAMPION)
    if champion == newest.version:
        return Verdict(task=task, version=newest.version, champion=champion,
                       outcome="unchanged", reason="already the champion")  # fmt: skip
    if _was_champion(registry, newest):
        return Verdict(task=task, version=newest.version, champion=champion, outcome="kept",
                       reason="was champion before and was rolled back")  # fmt: skip
    champion_val = None
    try:
        challenger_val = _val(bank, predictor, newest)
        if champion is not None:
            champion_val = _val(bank, predictor, registry.resolve(f"{task}@{champion}"))
    except AdapterBankError as error:  # of this task; the others are judged all the same
        return Verdict(task=task, version=newest.version, champion=champion,
                       outcome="refused", reason=f"cannot be judged: {error.message}")  # fmt: skip
    verdict = Verdict(
        task=task,
        version=newest.version,
        champion=champion,
        outcome="promoted",
        reason="passed every gate",
        challenger_val=challenger_val,
        champion_val=champion_val,
    )
    failure = _failure(gates, challenger_val, champion_val)
    if failure is not None:
        return replace(verdict, outcome="refused", reason=failure)
    registry.promote(f"{task}@{newest.version}", expected=champion, reason="release",
                     verdict=verdict.as_json())  # fmt: skip
    _mirror_aliases(bank, task)
    return verdict


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

    Returns:
        None where its classes are not those of the data, so that no comparison means anything.

    Raises:
        InputError: the task has no prepared data.
    """
    data = load_task(bank.data(version.task), spec=predictor.backbone.spec)
    _, loaded = predictor.load(f"{version.task}@{version.version}")
    if loaded.config.classes != data.classes:
        return None
    return evaluate(predictor.backbone, data.val, loaded.folded).score


def _was_champion(registry: Registry, version: Version) -> bool:
    return any(
        event.alias == CHAMPION and event.to_version == version.version
        for event in registry.history(version.task)
    )


def _mirror_aliases(bank: Bank, task: str) -> None:
    """Let MLflow's aliases of a task stand where the registry's do."""
    aliases = bank.registry.aliases(task)
    if PREVIOUS not in aliases:  # the one alias that can vanish
        mirror_alias(bank.root, task, PREVIOUS, None)
    for alias, number in aliases.items():
        version = bank.registry.resolve(f"{task}@{number}")
        mirror(bank, version)
        mirror_alias(bank.root, task, alias, version.digest)
