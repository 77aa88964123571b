"""Judge one new version: by its own figures first, then by what it does to the rest of the bank."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from adapterbank.bank.bank import Bank
from adapterbank.bank.features import adapter_logits
from adapterbank.data.base import TaskData
from adapterbank.data.store import load_task, stored_digest
from adapterbank.errors import IntegrityError
from adapterbank.inference.artifact import ADAPTER_MODEL, METRICS
from adapterbank.inference.latency import blank_images, relative_latency
from adapterbank.inference.predictor import Predictor
from adapterbank.inference.router_versions import RouterPlan
from adapterbank.records import Score
from adapterbank.registry.manifest import check_some
from adapterbank.registry.metrics import read_metrics
from adapterbank.registry.store import Registry
from adapterbank.registry.summary import score_of
from adapterbank.registry.task_record import CHAMPION, REFUSE, RETIRE
from adapterbank.registry.verdicts import Verdict, parse_verdict
from adapterbank.registry.versions import Version
from adapterbank.release.bank_gate import bank_terms, check_bank, routing_failures
from adapterbank.release.compare import calibration_error
from adapterbank.release.gates import Answers, Failure, contrast, find_failures


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judges the new versions of one release.

    Args:
        bank: an open bank.
        predictor: of its registry.
        champions: champions of the bank that were found sound before.
    """

    bank: Bank
    predictor: Predictor
    champions: int

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
                        gates=bank.config.gates.model_dump(),
                        data=stored_digest(bank.data(task)))  # fmt: skip
        refused = self._refused_before(terms)
        if refused is not None:
            return refused
        verdict, failures = self._judge_itself(newest, terms)
        if not failures:
            verdict, failures = self._judge_bank(newest, verdict)
        if failures:
            reason = "; ".join(failure.reason for failure in failures)
            return replace(verdict, outcome="refused", gate=failures[0].gate, reason=reason)
        return verdict

    def _judge_itself(
        self, newest: Version, verdict: Verdict
    ) -> tuple[Verdict, tuple[Failure, ...]]:
        """Judge a version by its own answers, and against the champion's to the same images."""
        gates, task = self.bank.config.gates, newest.task
        data = load_task(self.bank.data(task), spec=self.predictor.backbone.spec)
        mine, theirs = self._answers(newest, data), None
        if verdict.champion is not None:
            champion = self.bank.registry.resolve(f"{task}@{verdict.champion}")
            theirs = self._answers(champion, data)
        verdict = replace(verdict, challenger_val=None if mine is None else mine.score,
                          champion_val=None if theirs is None else theirs.score)  # fmt: skip
        if mine is None:
            reason = "its classes are not those of the prepared data"
            return verdict, (Failure(gate="classes", reason=reason),)
        _, sizes = check_some(newest.path, newest.digest, ())
        calibration, skipped = _calibration(mine), tuple[str, ...]()
        if gates.max_calibration_error is not None and calibration is None:
            skipped = ("max_calibration_error: it was trained on the validation images in the end",)
        verdict = replace(
            verdict,
            comparison=None if theirs is None else contrast(mine, theirs),
            calibration_error=calibration,
            bytes=sizes[ADAPTER_MODEL],
            latency=None if gates.max_latency is None else self._latency(newest),
            not_judged=skipped,
        )
        return verdict, find_failures(gates, verdict)

    def _answers(self, version: Version, data: TaskData) -> Answers | None:
        """Let a version answer its task's validation images, as they are prepared now.

        A version that a search led to was trained on them in the end. Its score is that of the
        trial that chose it, the same configuration trained without (``bank/plan.py``), a count
        only. None where its classes are not those of the data, so that no comparison means
        anything.
        """
        bank, task = self.bank, version.task
        _, loaded = self.predictor.load(f"{task}@{version.version}")
        if loaded.config.classes != data.classes:
            return None
        seen = loaded.config.train.get("fit") == "train+val"
        if seen and loaded.config.data.digest == stored_digest(bank.data(task)):
            files, _ = check_some(version.path, version.digest, (METRICS,))
            where = f"{version.path}/{METRICS}"
            val = score_of(read_metrics(files.get(METRICS, b"{}"), where=where), "val")
            if val is None:
                raise IntegrityError(f"{where} does not say how many validation images were right")
            return Answers(score=val)
        answers = adapter_logits(bank, self.predictor.backbone, task, "val", loaded)
        confidence = answers.logits.double().softmax(1).amax(1).numpy()
        right = answers.right.numpy()
        score = Score(correct=int(right.sum()), total=len(right))
        return Answers(score=score, right=right, confidence=confidence)

    def _judge_bank(self, newest: Version, verdict: Verdict) -> tuple[Verdict, tuple[Failure, ...]]:
        """Judge a version by what the router would lose of the other tasks."""
        gates, first = self.bank.config.gates, verdict.champion is None
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

    def _latency(self, version: Version) -> float:
        backbone = self.predictor.backbone
        _, loaded = self.predictor.load(f"{version.task}@{version.version}")
        return round(relative_latency(backbone, loaded.folded, blank_images(backbone)), 4)


def _calibration(answers: Answers) -> float | None:
    if answers.right is None or answers.confidence is None:
        return None
    return round(calibration_error(answers.confidence, answers.right), 6)


def _taken_back(registry: Registry, version: Version) -> str | None:
    """Why a version is not to be served although nobody serves another; None if it may be."""
    history = registry.history(version.task)
    deeds = (event.action for event in reversed(history) if event.action != REFUSE)
    if next(deeds, None) == RETIRE:  # nothing was registered or promoted since
        return "the task was removed"
    served = (event.to_version for event in history if event.alias == CHAMPION)
    return "was champion before and was rolled back" if version.version in served else None
