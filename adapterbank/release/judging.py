"""Judge one new version: by its own figures first, then by what it does to the rest of the bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from adapterbank.bank.bank import Bank
from adapterbank.config.gates import GateConfig
from adapterbank.data.base import TaskData
from adapterbank.data.store import load_task, stored_digest
from adapterbank.errors import AdapterBankError
from adapterbank.inference.artifact import ADAPTER_MODEL
from adapterbank.inference.latency import blank_images, relative_latency
from adapterbank.inference.predictor import Predictor
from adapterbank.inference.router_versions import RouterPlan
from adapterbank.registry.manifest import check_some
from adapterbank.registry.store import Registry
from adapterbank.registry.task_record import CHAMPION, REFUSE, RETIRE
from adapterbank.registry.verdicts import JudgedOn, Verdict, parse_verdict, past_champions
from adapterbank.registry.versions import Version
from adapterbank.release.answers import Answers, Contender, measure_answers
from adapterbank.release.bank_gate import bank_terms, check_bank, routing_failures
from adapterbank.release.calibration import calibration_error
from adapterbank.release.fresh import Fresh, class_change, fresh_images, learned_images
from adapterbank.release.gates import Failure, contrast, find_failures


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judges the new versions of one release.

    Args:
        bank: an open bank.
        predictor: of its registry.
        champions: champions of the bank that were found sound before.
        gates: the terms.
    """

    bank: Bank
    predictor: Predictor
    champions: int
    gates: GateConfig

    @cached_property
    def plan(self) -> RouterPlan:
        """What routers are built by; one for all versions, so that it reads no record twice."""
        return RouterPlan.of(self.bank.registry, self.bank.config.router)

    def judge(self, newest: Version) -> Verdict:
        """Decide on a task's newest version; nothing is moved or written.

        Returns:
            the verdict; ``refused`` also where it was refused on the same terms before, and then
            as it was written.

        Raises:
            InputError: the task has no prepared data.
            IntegrityError: what is stored is damaged.
        """
        bank, task = self.bank, newest.task
        champion = bank.registry.aliases(task).get(CHAMPION)
        verdict = Verdict(task=task, version=newest.version, champion=champion,
                          outcome="unchanged", reason="already the champion")  # fmt: skip
        if champion == newest.version:
            return verdict
        reason = _taken_back(bank.registry, newest)
        if reason is not None:
            return replace(verdict, outcome="kept", reason=reason)
        if task not in bank.config.tasks and not bank.data(task).is_dir():
            reason = "nothing to judge it on: the task is not in pipelines/params.yaml any more"
            return replace(verdict, outcome="kept", reason=reason)
        terms = replace(verdict, outcome="promoted", reason="passed every gate",
                        gates=self.gates.model_dump(),
                        data=stored_digest(bank.data(task)))  # fmt: skip
        refused = self._refused_before(terms)
        if refused is not None:
            return refused
        verdict, failures = self._judge_itself(newest, terms)
        if not failures:
            verdict, failures = self._judge_bank(newest, verdict)
        if failures:
            told = "" if verdict.images is None else verdict.images.told()
            reasons = [failure.reason for failure in failures]
            if told and failures[0].gate != "min_images":  # which tells it in its own words
                reasons.append(told)
            reason = "; ".join(reasons)
            return replace(verdict, outcome="refused", gate=failures[0].gate, reason=reason)
        return verdict

    def _judge_itself(
        self, newest: Version, verdict: Verdict
    ) -> tuple[Verdict, tuple[Failure, ...]]:
        """Judge a version by its own answers, and against those of champions to the same images."""
        gates, spec = self.gates, self.predictor.backbone.spec
        data = load_task(self.bank.data(newest.task), spec=spec)
        challenger = self._contender(newest, data)
        if set(challenger.classes) != set(data.classes):
            reason = "its classes are not those of the prepared data"
            return verdict, (Failure(gate="classes", reason=reason),)
        champions, skipped = self._champions(challenger, data)
        least = gates.min_images if champions else 1  # a first version is compared with nobody
        compared = [challenger, *champions]
        learned = [one.learned for one in champions]
        fresh, *others = fresh_images(data, challenger.learned, learned, least)
        images = JudgedOn(
            split=fresh.split,
            total=fresh.total,
            seen=len(fresh.rows) - fresh.total,
            unstated=tuple(one.version.version for one in compared if not one.learned.stated),
        )
        verdict = replace(verdict, images=images, not_judged=skipped)
        if fresh.total < least:
            reason = (
                f"{images.told(least)} (gates.min_images). To mend it: add images to the data, then"
                " dvc repro"
            )
            return verdict, (Failure(gate="min_images", reason=reason),)
        answers = self._answers(compared, data, fresh)
        calibration = calibration_error(answers[0].confidence, answers[0].right)
        _, sizes = check_some(newest.path, newest.digest, ())
        verdict = replace(
            verdict,
            reason="; ".join(filter(None, [verdict.reason, images.told()])),
            calibration_error=None if calibration is None else calibration.error,
            calibration_interval=None if calibration is None else calibration.interval,
            bytes=sizes[ADAPTER_MODEL],
            latency=None if gates.max_latency is None else self._latency(challenger),
        )
        verdict = _compare(gates, verdict, compared, answers)
        failures = find_failures(gates, verdict)
        for other in [] if failures else others:
            again = _compare(gates, verdict, compared, self._answers(compared, data, other))
            failures += tuple(
                replace(one, reason=f"on images that it says it learned from too, {one.reason}")
                for one in find_failures(gates, again)
            )
        return verdict, failures

    def _answers(
        self, compared: Sequence[Contender], data: TaskData, images: Fresh
    ) -> list[Answers]:
        backbone = self.predictor.backbone
        return [measure_answers(self.bank, backbone, one, data, images) for one in compared]

    def _champions(
        self, challenger: Contender, data: TaskData
    ) -> tuple[list[Contender], tuple[str, ...]]:
        """Load the champions to compare with, the present one last; say why others are left out."""
        registry, task = self.bank.registry, challenger.version.task
        numbers = past_champions(registry.history(task))
        champions, skipped = [], []
        for number in numbers:
            earlier = f"max_decline: {task}@{number}, a champion before"
            try:
                one = self._contender(registry.resolve(f"{task}@{number}"), data)
            except AdapterBankError as error:
                if number == numbers[-1]:
                    raise
                skipped.append(f"{earlier}: {error.message}")
                continue
            if number == numbers[-1] or set(one.classes) == set(challenger.classes):
                champions.append(one)
            else:
                skipped.append(f"{earlier}, has other classes")
        return champions, tuple(skipped)

    def _contender(self, version: Version, data: TaskData) -> Contender:
        _, loaded = self.predictor.load(f"{version.task}@{version.version}")
        digest = stored_digest(self.bank.data(version.task))
        learned = learned_images(version, loaded.config, data, digest)
        return Contender(version=version, loaded=loaded, learned=learned)

    def _judge_bank(self, newest: Version, verdict: Verdict) -> tuple[Verdict, tuple[Failure, ...]]:
        """Judge a version by what the router would lose of the other tasks."""
        gates, first = self.gates, verdict.champion is None
        check, routed = check_bank(
            self.bank, self.predictor.backbone, self.plan, newest, self.champions
        )
        verdict = replace(verdict, bank=check)
        allowed = gates.max_new_task_drop if first else gates.max_routing_drop
        if allowed is not None:
            return verdict, routing_failures(gates, routed, allowed=allowed)
        if gates.max_routing_drop is not None:  # a new task's harm is noted all the same
            lost = routing_failures(gates, routed, allowed=gates.max_routing_drop)
            verdict = replace(
                verdict, reason="; ".join([verdict.reason, *(f.reason for f in lost)])
            )
        return verdict, ()

    def _refused_before(self, terms: Verdict) -> Verdict | None:
        """The verdict that refused a version on the same terms, if there was one."""
        for event in reversed(self.bank.registry.history(terms.task)):
            if event.action != REFUSE or event.to_version != terms.version:
                continue
            verdict = parse_verdict(event.verdict)
            if verdict is None:  # not one of a release
                continue
            own = (verdict.champion, verdict.gates, verdict.data)
            if own != (terms.champion, terms.gates, terms.data):
                continue
            check = verdict.bank  # None where it did not come so far: other tasks said nothing
            if check is None:
                return verdict
            sources = self.plan.champions(self.bank.registry).sources
            if check.terms == bank_terms(self.bank, terms.task, sources):
                return verdict
        return None

    def _latency(self, contender: Contender) -> float:
        backbone = self.predictor.backbone
        folded = contender.loaded.folded
        return round(relative_latency(backbone, folded, blank_images(backbone)), 4)


def _compare(
    gates: GateConfig, verdict: Verdict, compared: Sequence[Contender], answers: Sequence[Answers]
) -> Verdict:
    """Compare the first with the champions, on images of classes that the present one knows."""
    verdict = replace(verdict, challenger_val=answers[0].score)
    if len(compared) == 1:
        return verdict
    before, champion = compared[-1].classes, answers[-1]
    verdict = replace(
        verdict,
        champion_val=champion.score,
        classes=class_change(before, compared[0].classes, champion.truth, champion.said),
    )
    known = frozenset(before)  # of very many classes and images, numpy's isin takes seconds
    rows = np.array([name in known for name in champion.truth], dtype=bool)
    if rows.sum() < gates.min_images:
        reason = f"max_regression: the champion knows the classes of {rows.sum()} images only"
        return replace(verdict, not_judged=(*verdict.not_judged, reason))
    mine, *theirs = (one.right[rows] for one in answers)
    found = contrast(gates, mine, theirs)
    return replace(
        verdict,
        comparison=found.comparison,
        decline=found.decline,
        # Where nobody asks, a later release has to look at all of them again.
        best=None if gates.max_decline is None else compared[1 + found.best].version.version,
    )


def _taken_back(registry: Registry, version: Version) -> str | None:
    """Why a version is not to be served although nobody serves another; None if it may be."""
    history = registry.history(version.task)
    deeds = (event.action for event in reversed(history) if event.action != REFUSE)
    if next(deeds, None) == RETIRE:  # nothing was registered or promoted since
        return "the task was removed"
    served = (event.to_version for event in history if event.alias == CHAMPION)
    return "was champion before and was rolled back" if version.version in served else None
