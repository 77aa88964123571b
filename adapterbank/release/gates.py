"""The gates as pure rules: which of them a version does not pass, by what it was measured at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapterbank.config.gates import GateConfig
from adapterbank.records import Score
from adapterbank.registry.verdicts import Comparison, Verdict
from adapterbank.release.compare import compare_answers, compare_counts


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """A version on n images.

    Of one that has seen them only the count of the trial that chose it is there.
    """

    score: Score
    right: NDArray[np.bool_] | None = None  # (n,) whether it answered each right
    confidence: NDArray[np.float64] | None = None  # (n,) probability of the label it gave


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A gate that was not passed, and why in words."""

    gate: str
    reason: str


def contrast(challenger: Answers, champion: Answers) -> Comparison:
    """Compare two versions on the same images: image by image where both answered each."""
    if challenger.right is None or champion.right is None:
        return compare_counts(challenger.score, champion.score)
    return compare_answers(challenger.right, champion.right)


def is_worse(comparison: Comparison, gates: GateConfig, *, allowed: float) -> bool:
    """The one rule for "worse".

    Args:
        comparison: of the two versions.
        gates: ``alpha`` and ``max_drop``.
        allowed: a fall that is accepted however sure it is.

    Returns:
        whether the difference is beyond ``allowed``, and either no accident (p ≤ alpha) or as large
        as ``max_drop``.
    """
    if comparison.difference >= -allowed:
        return False
    return comparison.p <= gates.alpha or comparison.difference <= -gates.max_drop


def find_failures(gates: GateConfig, measured: Verdict) -> tuple[Failure, ...]:
    """Name every gate a version does not pass, with the numbers.

    Args:
        gates: the terms.
        measured: with the version's score; None is what was not or cannot be measured.
    """
    val, failures = measured.challenger_val, []
    assert val is not None
    if val.accuracy < gates.min_accuracy:
        reason = f"accuracy {val.accuracy:.4f} is below gates.min_accuracy {gates.min_accuracy:.4f}"
        failures.append(Failure(gate="min_accuracy", reason=reason))
    if measured.comparison is not None and measured.champion_val is not None:
        failures += _regression(gates, val, measured.champion_val, measured.comparison)
    for gate, value, what in (
        ("max_calibration_error", measured.calibration_error, "the calibration error"),
        ("max_bytes", measured.bytes, "the adapter's size in bytes"),
        ("max_latency", measured.latency, "a forward, in forwards of the bare backbone,"),
    ):
        limit = getattr(gates, gate)
        if limit is not None and value is not None and value > limit:
            reason = f"{what} is {value:.6g}, above gates.{gate} {limit:.6g}"
            failures.append(Failure(gate=gate, reason=reason))
    return tuple(failures)


def _regression(
    gates: GateConfig, challenger: Score, champion: Score, comparison: Comparison
) -> list[Failure]:
    if not is_worse(comparison, gates, allowed=gates.max_regression):
        return []
    start = (
        f"accuracy {challenger.accuracy:.4f} is {-100 * comparison.difference:.1f} points below the"
        f" champion's {champion.accuracy:.4f} on the same images"
    )
    sure = f"p {comparison.p:.2g}, {comparison.test}"
    if comparison.p <= gates.alpha:
        return [Failure(gate="max_regression", reason=f"{start} ({sure})")]
    reason = f"{start}, gates.max_drop {100 * gates.max_drop:.1f} or more ({sure})"
    return [Failure(gate="max_drop", reason=reason)]
