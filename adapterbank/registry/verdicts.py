"""What a release says of a version: kept in the task's history, read back, and told in short."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from adapterbank.records import Score
from adapterbank.registry.task_record import REFUSE, Event

_TAG: Final = "adapterbank.verdict"
_NONE: Final = "none"  # of a figure there is not; a tag that was once set would stay otherwise
_REASON_LETTERS: Final = 500


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A challenger against a champion on the same images, as a test decided it.

    Args:
        test: ``mcnemar`` where both answered each image, ``fisher`` where only counts exist.
        p: one-sided: how likely a difference as bad is if the challenger is no worse.
        difference: accuracy of the challenger less the champion's.
        interval: of the difference, 95 %.
        gained: images that only the challenger got right; None where only counts exist.
        lost: images that only the champion got right.
    """

    test: Literal["mcnemar", "fisher"]
    p: float
    difference: float
    interval: tuple[float, float]
    gained: int | None = None
    lost: int | None = None


@dataclass(frozen=True, kw_only=True)
class RoutedTask:
    """What the challenger's router does to the validation images of another task.

    Args:
        task: the other task.
        total: its images.
        recall: images routed to it, by the challenger's router against the present one.
        right: images routed to it (by the present router, by the challenger's).
        abstained: images of no task (by the present router, by the challenger's).
        p_abstained: of McNemar's test that as many more are rejected by accident.
        alpha: the share that the router may reject as unknown.
    """

    task: str
    total: int
    recall: Comparison
    right: tuple[int, int]
    abstained: tuple[int, int]
    p_abstained: float
    alpha: float


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
        challenger_val: the version's score on the validation images.
        champion_val: the champion's.
        gates: the terms.
        data: digest of what both were scored on.
        gate: the gate that refused it.
        comparison: the test of the difference.
        calibration_error: expected, on the validation images.
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
    challenger_val: Score | None = None
    champion_val: Score | None = None
    gates: dict[str, float | None] | None = None
    data: str | None = None
    gate: str | None = None
    comparison: Comparison | None = None
    calibration_error: float | None = None
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
        if self.comparison is None:
            return f"{self.outcome}{gate}"
        low, high = (100 * bound for bound in self.comparison.interval)
        return (
            f"{self.outcome}{gate}: {100 * self.comparison.difference:+.1f} points"
            f" [{low:+.1f}, {high:+.1f}], p {self.comparison.p:.2g} ({self.comparison.test})"
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


def last_verdict(history: Iterable[Event], version: int) -> Event | None:
    """The newest event that has a verdict on a version."""
    judged = (e for e in history if e.to_version == version and e.verdict is not None)
    return max(judged, key=lambda event: event.step, default=None)


def standing_refusal(history: Iterable[Event], version: int) -> Event | None:
    """The event that refused a version, if nothing was decided on it since."""
    last = last_verdict(history, version)
    return last if last is not None and last.action == REFUSE else None


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
