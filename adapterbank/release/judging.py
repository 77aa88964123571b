"""Judge one new version: by its own figures first, then by what it does to the rest of the bank."""

from __future__ import annotations

from dataclasses import replace

from adapterbank.bank.bank import Bank
from adapterbank.data.base import TaskData, shared_images
from adapterbank.data.store import load_task, stored_digest
from adapterbank.inference.artifact import ADAPTER_MODEL
from adapterbank.inference.latency import blank_images, relative_latency
from adapterbank.inference.predictor import Predictor
from adapterbank.registry.store import Registry
from adapterbank.registry.task_record import CHAMPION, REFUSE, RETIRE
from adapterbank.registry.verdicts import Verdict, parse_verdict
from adapterbank.registry.versions import Version
from adapterbank.release.answers import val_answers
from adapterbank.release.bank_gate import bank_terms, check_bank, routing_failures
from adapterbank.release.compare import calibration_error
from adapterbank.release.gates import Answers, Failure, Measured, contrast, find_failures

_PUBLISHED = "torchvision://"


def judge(bank: Bank, predictor: Predictor, newest: Version, champions: int) -> Verdict:
    """Decide on a task's newest version; nothing is moved or written.

    Args:
        bank: an open bank.
        predictor: of its registry.
        newest: the version.
        champions: champions of the bank that were found sound before.

    Returns:
        the verdict; ``refused`` also where it was refused on the same terms before, and then as it
        was written.

    Raises:
        InputError: the task has no prepared data.
        IntegrityError: what is stored is damaged.
    """
    registry, task = bank.registry, newest.task
    champion = registry.aliases(task).get(CHAMPION)
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
    terms = replace(verdict, outcome="promoted", reason="passed every gate",
                    gates=bank.config.gates.model_dump(),
                    data=stored_digest(bank.data(task)))  # fmt: skip
    refused = _refused_before(bank, terms)
    if refused is not None:
        return refused
    verdict, failures = _judge_itself(bank, predictor, newest, terms)
    if not failures:
        verdict, failures = _judge_bank(bank, predictor, newest, verdict, champions)
    if failures:
        reason = "; ".join(failure.reason for failure in failures)
        return replace(verdict, outcome="refused", gate=failures[0].gate, reason=reason)
    return verdict


def _judge_itself(
    bank: Bank, predictor: Predictor, newest: Version, verdict: Verdict
) -> tuple[Verdict, tuple[Failure, ...]]:
    """Judge a version by its own answers, and against the champion's to the same images."""
    gates, task = bank.config.gates, newest.task
    data = load_task(bank.data(task), spec=predictor.backbone.spec)
    mine = val_answers(bank, predictor, newest, data)
    verdict = replace(verdict, challenger_val=None if mine is None else mine.score)
    theirs = None
    if verdict.champion is not None:
        champion = bank.registry.resolve(f"{task}@{verdict.champion}")
        theirs = val_answers(bank, predictor, champion, data)
    verdict = replace(verdict, champion_val=None if theirs is None else theirs.score)
    if mine is None:
        reason = "its classes are not those of the prepared data"
        return verdict, (Failure(gate="classes", reason=reason),)
    found = Measured(
        val=mine.score,
        champion=verdict.champion_val,
        comparison=None if theirs is None else contrast(mine, theirs),
        calibration_error=_calibration(mine),
        bytes=len(bank.registry.read(newest)[ADAPTER_MODEL]),
        latency=None if gates.max_latency is None else _latency(predictor, newest),
    )
    overlap, skipped = _overlap(data)
    if gates.max_calibration_error is not None and found.calibration_error is None:
        skipped += ("max_calibration_error: it was trained on the validation images in the end",)
    verdict = replace(
        verdict,
        comparison=found.comparison,
        calibration_error=found.calibration_error,
        bytes=found.bytes,
        latency=found.latency,
        not_judged=skipped,
    )
    return verdict, (*overlap, *find_failures(gates, found))


def _judge_bank(
    bank: Bank, predictor: Predictor, newest: Version, verdict: Verdict, champions: int
) -> tuple[Verdict, tuple[Failure, ...]]:
    """Judge a version by what the router would lose of the other tasks."""
    gates, first = bank.config.gates, verdict.champion is None
    check, routed = check_bank(bank, predictor, newest, champions)
    verdict = replace(verdict, bank=check)
    allowed = gates.max_new_task_drop if first else gates.max_routing_drop
    if allowed is not None:
        return verdict, routing_failures(gates, routed, allowed=allowed)
    if gates.max_routing_drop is not None:  # a new task's harm is told all the same
        lost = routing_failures(gates, routed, allowed=gates.max_routing_drop)
        verdict = replace(verdict, reason="; ".join([verdict.reason, *(f.reason for f in lost)]))
    return verdict, ()


def _refused_before(bank: Bank, terms: Verdict) -> Verdict | None:
    """The verdict that refused a version on the same terms, if there was one."""
    for event in reversed(bank.registry.history(terms.task)):
        if event.action != REFUSE or event.to_version != terms.version:
            continue
        verdict = parse_verdict(event.verdict)
        if verdict is None:  # not one of a release
            continue
        own = (verdict.champion, verdict.gates, verdict.data)
        if own != (terms.champion, terms.gates, terms.data):
            continue
        check = verdict.bank  # None where it did not come so far: other tasks said nothing
        if check is None or check.terms == bank_terms(bank, terms.task):
            return verdict
    return None


def _calibration(answers: Answers) -> float | None:
    if answers.right is None or answers.confidence is None:
        return None
    return round(calibration_error(answers.confidence, answers.right), 6)


def _latency(predictor: Predictor, version: Version) -> float:
    backbone = predictor.backbone
    _, loaded = predictor.load(f"{version.task}@{version.version}")
    return round(relative_latency(backbone, loaded.folded, blank_images(backbone)), 4)


def _overlap(data: TaskData) -> tuple[tuple[Failure, ...], tuple[str, ...]]:
    """Refuse figures of images that were trained on; published splits are kept as they are."""
    if data.source.startswith(_PUBLISHED):
        return (), ("overlap: published splits are kept, and prepare said what they share",)
    failures = tuple(
        Failure(
            gate="overlap",
            reason=f"{count} of {len(data.split(one))} {one} images are also in {other}, pixel for"
            " pixel",
        )
        for (one, other), count in shared_images(data).items()
    )
    return failures, ()


def _taken_back(registry: Registry, version: Version) -> str | None:
    """Why a version is not to be served although nobody serves another; None if it may be."""
    history = registry.history(version.task)
    deeds = (event.action for event in reversed(history) if event.action != REFUSE)
    if next(deeds, None) == RETIRE:  # nothing was registered or promoted since
        return "the task was removed"
    served = (event.to_version for event in history if event.alias == CHAMPION)
    return "was champion before and was rolled back" if version.version in served else None
