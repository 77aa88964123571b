"""The ``release`` stage: each new version judged once, aliases moved, the router rebuilt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from adapterbank.bank.bank import RELEASE_REPORT, Bank, write_json
from adapterbank.bank.mirror import follow_aliases
from adapterbank.continual.steps import record_steps
from adapterbank.durable import make_directory
from adapterbank.errors import AdapterBankError, GateRefused, IntegrityError
from adapterbank.inference.predictor import Predictor
from adapterbank.inference.router_versions import rebuild_router
from adapterbank.records import ROUTER
from adapterbank.registry.task_record import CHAMPION, REFUSE
from adapterbank.registry.verdicts import Verdict, parse_verdict
from adapterbank.registry.versions import Version
from adapterbank.release.judging import Judge


@dataclass(frozen=True, kw_only=True)
class ReleaseReport:
    """One release."""

    verdicts: tuple[Verdict, ...]  # one for each task, in the order of their names
    notes: tuple[str, ...] = ()  # sentences on the router that was built

    @property
    def refused(self) -> tuple[Verdict, ...]:
        """Verdicts that kept a new version from being served."""
        return tuple(v for v in self.verdicts if v.outcome == "refused")


def release(
    bank: Bank,
    progress: Callable[[int, int], None] | None = None,
    show: Callable[[ReleaseReport], None] | None = None,
    *,
    device: str | None = None,
    accept_classes: bool = False,
) -> ReleaseReport:
    """Judge each task's newest version once, serve it where it passes, and mirror all aliases.

    First the whole bank is checked: every champion's bytes are verified and its canary replayed,
    so that nothing is released on top of damage. A newest version that has been champion before,
    and was rolled back, stays back; one that was refused stays refused on the same terms.

    Args:
        bank: an open bank.
        progress: called with the tasks judged so far and in all.
        show: gets the report, which is on the disk by then, before anything is raised for it.
        device: where versions are judged; the bank's device if None.
        accept_classes: this once, as if ``gates.accept_classes`` were set.

    Raises:
        AdapterBankError: a task could not be judged, or MLflow did not follow; the rest is done.
        GateRefused: the bank itself is not sound; nothing was moved.
        IntegrityError: as above, because stored bytes are not what was published.
    """
    predictor = Predictor(bank.registry, device=device or bank.config.device)
    tasks = bank.registry.tasks()
    gates = bank.config.gates
    if accept_classes:
        gates = gates.model_copy(update={"accept_classes": True})
    judge = Judge(
        bank=bank, predictor=predictor, champions=_check_bank(predictor, tasks), gates=gates
    )
    verdicts, failures = [], []
    for index, task in enumerate(tasks):
        versions, aliases = bank.registry.overview(task)
        newest = versions[-1]
        try:
            verdicts.append(_decide(judge, newest))
        except AdapterBankError as error:  # of this task; the others are judged all the same
            reason = f"cannot be judged: {error.message}"
            champion = aliases.get(CHAMPION)
            verdicts.append(Verdict(task=task, version=newest.version, champion=champion,
                                    outcome="unjudged", reason=reason))  # fmt: skip
            failures.append((f"{task} {reason}", error.fix))
        if progress is not None:
            progress(index + 1, len(tasks))
    report = ReleaseReport(verdicts=tuple(verdicts))
    write_json(bank.root / RELEASE_REPORT, {"verdicts": [v.as_json() for v in verdicts]})
    for verdict in verdicts:  # also where nothing moved: an earlier mirror may have failed
        refused = verdict.version if verdict.outcome == "refused" else None
        problem = follow_aliases(bank, verdict.task, refused=refused)
        if problem is not None:
            failures.append((f"MLflow does not follow {verdict.task}: {problem}", None))
    notes, problems = _follow(bank)
    report = replace(report, notes=notes)
    failures += problems + record_steps(bank, predictor)
    if show is not None:
        show(report)
    if failures:
        raise AdapterBankError(
            f"the release is not complete: {'; '.join(message for message, _ in failures)}",
            fix=next((fix for _, fix in failures if fix), "dvc repro release"),
        )
    return report


def _follow(bank: Bank) -> tuple[tuple[str, ...], list[tuple[str, str | None]]]:
    """Have the router follow the champions; say what to look at, and why it does not."""
    make_directory(bank.registry.root / ROUTER)  # an output of DVC's, if nothing is in it too
    try:
        rebuilt = rebuild_router(bank.registry, bank.config.router, reason="release")
    except AdapterBankError as error:
        return (), [(f"the router does not follow the champions: {error.message}", error.fix)]
    return rebuilt.notes, []


def _check_bank(predictor: Predictor, tasks: tuple[str, ...]) -> int:
    """Verify every champion and replay its canary; return how many there are."""
    champions = 0
    for task in tasks:
        try:
            if CHAMPION in predictor.registry.aliases(task):
                predictor.load(f"{task}@{CHAMPION}")
                champions += 1
        except AdapterBankError as error:
            kind = type(error) if isinstance(error, IntegrityError) else GateRefused
            raise kind(
                f"nothing was released: {task}@{CHAMPION} is not sound: {error.message}",
                fix=error.fix or "adapterbank verify",
            ) from error
    return champions


def _decide(judge: Judge, newest: Version) -> Verdict:
    """Judge a version, and do and write down what follows from it."""
    bank, verdict = judge.bank, judge.judge(newest)
    if verdict.outcome == "promoted":
        bank.registry.promote(str(newest), expected=verdict.champion, reason="release",
                              verdict=verdict.as_json())  # fmt: skip
    elif verdict.outcome == "refused" and not _is_written(bank, newest, verdict):
        bank.registry.record_verdict(str(newest), verdict.as_json(), reason=verdict.reason)
    return verdict


def _is_written(bank: Bank, version: Version, verdict: Verdict) -> bool:
    """Whether history has this very refusal of a version."""
    history = bank.registry.history(version.task)
    return any(
        parse_verdict(event.verdict) == verdict
        for event in history
        if event.action == REFUSE and event.to_version == version.version
    )
