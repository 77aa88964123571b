"""What a release says of a version: kept in the task's history, read back, and told in short."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from adapterbank.records import Score
from adapterbank.registry.task_record import CHAMPION, REFUSE, Event

_TAG: Final = "adapterbank.verdict"
_NONE: Final = "none"  # of a figure there is not; a tag that was once set would stay otherwise
_REASON_LETTERS: Final = 500


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A challenger against a champion on the same images, as a test decided it.

    Args:
        test: ``mcnemar``; ``fisher`` in earlier histories, where only counts existed.
        p: one-sided: how likely a difference as bad is if the challenger is no worse.
        difference: accuracy of the challenger less the champion's.
        interval: of the difference, 95 %.
        gained: images that only the challenger got right; None where only counts exist.
        lost: images that only the champion got right.
        total: images that both answered; None in earlier histories.
    """

    test: Literal["mcnemar", "fisher"]
    p: float
    difference: float
    interval: tuple[float, float]
    gained: int | None = None
    lost: int | None = None
    total: int | None = None


@dataclass(frozen=True, kw_only=True)
class JudgedOn:
    """The images that a version and the champions it was compared with answered.

    Args:
        split: they are of.
        total: how many they are.
        seen: images of the split that were set aside, because one of the versions learned from
            them: was trained on them, or its hyper-parameters were chosen by them.
        unstated: versions that do not say which images those are. Their configuration was taken at
            its word where they are of the images prepared now; else they count as having seen none.
    """

    split: Literal["val", "test"]
    total: int
    seen: int
    unstated: tuple[int, ...] = ()

    def told(self, least: int = 0) -> str:
        """In words, where it is not simply all validation images; or why fewer than least."""
        words = {"val": "validation", "test": "test"}[self.split]
        versions = "version" if len(self.unstated) == 1 else "versions"
        unstated = (
            f"what {versions} {' and '.join(map(str, self.unstated))} learned from is not stated"
            if self.unstated
            else ""
        )
        if self.total < least:
            return (
                f"it cannot be judged: versions compared learned from {self.seen} of"
                f" {self.seen + self.total} {words} images; {self.total} are left, {least} needed"
            )
        if not self.seen and self.split == "val":
            return unstated
        judged = f"judged on {self.total} {words} images that none of the versions learned from"
        if self.seen:
            judged += f" ({self.seen} more are set aside)"
        return "; ".join(filter(None, [judged, unstated]))


@dataclass(frozen=True, kw_only=True)
class ClassChange:
    """What a version's classes are to the champion's.

    Args:
        added: classes that the champion does not know.
        removed: classes of the champion that are gone.
        renamed: (before, now) where the champion calls most images of a class that is new by the
            name of one that is gone; they are in neither of the others.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        parts = []
        if self.removed:
            parts.append(f"lacks {', '.join(self.removed)}")
        if self.added:
            parts.append(f"adds {', '.join(self.added)}")
        parts += [f"calls {before} {now}" for before, now in self.renamed]
        return " and ".join(parts)


@dataclass(frozen=True, kw_only=True)
class RoutedTask:
    """What the challenger's router does to the validation images of another task.

    Args:
        task: the other task.
        total: its images.
        recall: images routed to it, by the challenger's router against the present one.
        right: images routed to it (by the present router, by the challenger's).
        adjusted: p of ``recall`` as one of several tasks (Holm); None in earlier histories.
        abstained: in earlier histories, images of no task (by the present router, by the
            challenger's). They were those that calibrate both routers, so the numbers say nothing.
        p_abstained: in earlier histories, of a test of that.
        alpha: in earlier histories, the share that the router may reject as unknown.
    """

    task: str
    total: int
    recall: Comparison
    right: tuple[int, int]
    adjusted: float | None = None
    abstained: tuple[int, int] | None = None
    p_abstained: float | None = None
    alpha: float | None = None


@dataclass(frozen=True, kw_only=True)
class BankCheck:
    """What a version does to the rest of the bank.

    Args:
        champions: champions whose bytes were verified and whose canaries were replayed before.
        same_router: nothing can change: the router has its routing record, or never has its task.
        judged: other tasks whose images were routed again.
        left_out: other tasks without prepared images here, or without a usable record.
        worst: the task that would lose most.
        terms: SHA-256 of how routers are built and of the other tasks' records and data.
    """

    champions: int
    same_router: bool = False
    judged: int = 0
    left_out: int = 0
    worst: RoutedTask | None = None
    terms: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was decided on one version, with the terms and the numbers it was decided by.

    Args:
        task: its task.
        version: its number.
        champion: the version that was served before.
        outcome: what became of it; ``forced`` is of a promotion by hand over a refusal.
        reason: in words, with the numbers.
        images: what they were scored on; None in earlier histories, where it was the validation
            images, and counts of its own search for a version that was trained on them.
        challenger_val: the version's score on them.
        champion_val: the champion's.
        classes: what its classes are to the champion's, where they are others.
        gates: the terms.
        data: digest of the prepared images.
        gate: the gate that refused it.
        comparison: the test of the difference to the champion.
        best: the best champion there was before, the present one included.
        decline: the difference to that one, where it is another than the champion.
        calibration_error: how far probabilities are from how often they are right.
        calibration_interval: of that, 95 %.
        bytes: of its adapter file.
        latency: of its forward, in forwards of the bare backbone; None where no gate asks.
        bank: what it does to other tasks; None where it did not come so far.
        not_judged: gates that were set and could not be applied, with the reason.
        over: the step of history with the refusal that was overruled.
    """

    task: str
    version: int
    champion: int | None
    outcome: Literal["promoted", "kept", "refused", "unchanged", "unjudged", "forced"]
    reason: str
    images: JudgedOn | None = None
    challenger_val: Score | None = None
    champion_val: Score | None = None
    classes: ClassChange | None = None
    gates: dict[str, bool | float | None] | None = None
    data: str | None = None
    gate: str | None = None
    comparison: Comparison | None = None
    best: int | None = None
    decline: Comparison | None = None
    calibration_error: float | None = None
    calibration_interval: tuple[float, float] | None = None
    bytes: int | None = None
    latency: float | None = None
    bank: BankCheck | None = None
    not_judged: tuple[str, ...] = ()
    over: int | None = None

    def as_json(self) -> dict[str, Any]:
        """As JSON values, as they come back from a file."""
        plain: dict[str, Any] = to_jsonable_python(self)
        return plain

    def short(self) -> str:
        """In one line for a table: the outcome and the figures of the test."""
        gate = f" by {self.gate}" if self.gate else ""
        found = self.decline if self.gate == "max_decline" and self.decline else self.comparison
        if found is None:
            return f"{self.outcome}{gate}"
        low, high = (100 * bound for bound in found.interval)
        return (
            f"{self.outcome}{gate}: {100 * found.difference:+.1f} points"
            f" [{low:+.1f}, {high:+.1f}], p {found.p:.2g} ({found.test})"
        )


def parse_verdict(content: Mapping[str, Any] | None) -> Verdict | None:
    """Read a verdict of a history, also one from before there were all figures.

    Returns:
        None where it is none of a release.
    """
    try:
        return TypeAdapter(Verdict).validate_python(content)
    except ValidationError:
        return None


def renumber_verdict(
    content: Mapping[str, Any], numbers: Mapping[int, int], steps: Mapping[int, int]
) -> dict[str, Any]:
    """Give what a verdict names the numbers that a merge of two records gave it.

    Args:
        content: the verdict, as its history has it; also what is none of a release.
        numbers: the versions' new numbers by the old ones.
        steps: the events' likewise; one that is not among them was left out of the merge.
    """
    named = {name: content.get(name) for name in ("version", "champion", "best")}
    made: dict[str, Any] = {
        name: numbers[n] for name, n in named.items() if isinstance(n, int) and n in numbers
    }
    if isinstance(content.get("over"), int):
        made["over"] = steps.get(content["over"])
    match content.get("images"):
        case {"unstated": [*unstated], **others} if all(isinstance(n, int) for n in unstated):
            made["images"] = {**others, "unstated": [numbers.get(n, n) for n in unstated]}
    return {**content, **made}


def last_verdict(history: Iterable[Event], version: int) -> Event | None:
    """The newest event that has a verdict on a version."""
    judged = (e for e in history if e.to_version == version and e.verdict is not None)
    return max(judged, key=lambda event: event.step, default=None)


def standing_refusal(history: Iterable[Event], version: int) -> Event | None:
    """The event that refused a version, if nothing was decided on it since."""
    last = last_verdict(history, version)
    return last if last is not None and last.action == REFUSE else None


def past_champions(history: Iterable[Event]) -> tuple[int, ...]:
    """The champions to hold a new version against, oldest first; the last is the present one.

    Of those that stand: what was rolled back was taken back for a reason. The verdict that promoted
    a version names the best before it, so that no earlier one is needed. A promotion by hand over a
    refusal begins anew: a person accepted what was lost.

    Args:
        history: of a task, oldest first.

    Returns:
        Numbers, each once; empty where there is no champion.
    """
    standing: list[tuple[int, Event]] = []
    for event in history:
        if event.alias != CHAMPION:
            continue
        if event.to_version is None:
            standing.clear()
        elif event.action == "rollback":
            del standing[-1:]
        else:
            standing.append((event.to_version, event))
    found: list[int] = []
    for version, event in reversed(standing):
        found.append(version)
        verdict = parse_verdict(event.verdict)
        if verdict is not None and verdict.outcome == "forced":
            break
        if verdict is not None and verdict.best is not None:
            found.append(verdict.best)
            break
    earlier = [version for version in reversed(found) if version != found[0]]
    return (*dict.fromkeys(earlier), *found[:1])


def verdict_tags(history: Iterable[Event], version: int) -> dict[str, str]:
    """What MLflow shows of the last verdict on a version; nothing where there is none."""
    event = last_verdict(history, version)
    verdict = None if event is None else parse_verdict(event.verdict)
    if verdict is None:
        return {}
    test = verdict.comparison
    figures: dict[str, object] = {
        "reason": verdict.reason[:_REASON_LETTERS],
        "gate": verdict.gate,
        "test": test and test.test,
        "p": test and f"{test.p:.6g}",
        "difference": test and f"{test.difference:+.6f}",
        "interval": test and f"{test.interval[0]:+.6f} {test.interval[1]:+.6f}",
    }
    return {
        _TAG: verdict.outcome,
        **{f"{_TAG}.{key}": str(value or _NONE) for key, value in figures.items()},
    }
