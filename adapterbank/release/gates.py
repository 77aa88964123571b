"""The gates as pure rules: which of them a version does not pass, by what it was measured at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from adapterbank.config.gates import GateConfig
from adapterbank.registry.verdicts import Comparison, Verdict
from adapterbank.release.compare import compare_answers
from adapterbank.significance import as_written, holm

Right = NDArray[np.bool_]
"""(n,) whether a version answered each of n images right."""

_LIKELY = 0.5  # p of a fall: in one comparison alone no fall has more


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A gate that was not passed, and why in words."""

    gate: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A challenger against the champions there were, on the same images."""

    comparison: Comparison  # with the present champion
    best: int  # place of the best among the champions
    decline: Comparison | None  # with the best; None where that is the present one


def find_best(champions: Sequence[Right], gates: GateConfig) -> int:
    """Find the champion that a challenger has to hold its own against; at least one.

    That is the first until a later one is better than it, by more than half of ``max_decline`` or
    so surely that it is no accident (p ≤ ``alpha``). So no champion is more than that above the
    best, and one that had a little luck with these images is not the best for that: the highest of
    many equal scores is luck, and would be a bar that too few as good pass.

    Args:
        champions: answers to the same images, in the order in which they were served.
        gates: ``max_decline`` and ``alpha``.

    Returns:
        its place.
    """
    if gates.max_decline is None:
        return len(champions) - 1
    best = 0
    for place in range(1, len(champions)):
        compared = compare_answers(champions[best], champions[place])
        if _declines(compared, gates, most=as_written(gates.max_decline) / 2):
            best = place
    return best


def contrast(gates: GateConfig, challenger: Right, champions: Sequence[Right]) -> Contrast:
    """Compare a challenger with the present champion and with the best there was.

    Args:
        gates: the terms.
        challenger: its answers.
        champions: theirs to the same images, in the order in which they were served; the last is
            the present one.
    """
    best = find_best(champions, gates)
    return Contrast(
        comparison=compare_answers(challenger, champions[-1]),
        best=best,
        decline=(
            None if best == len(champions) - 1 else compare_answers(challenger, champions[best])
        ),
    )


def passes_accuracy(gates: GateConfig, challenger: Right, champions: Sequence[Right]) -> bool:
    """Whether a challenger is no worse than the champions there were, as a release decides it.

    On the same images it is then at most ``max_decline`` (or ``max_regression``, if that is more)
    below the best of :func:`find_best`, which is at most half of that below any of them: however
    many versions follow one another, the last is less than twice that below the best there was.

    Args:
        gates: the terms.
        challenger: its answers.
        champions: see :func:`contrast`.
    """
    compared = contrast(gates, challenger, champions)
    return not _falls(gates, compared.comparison, compared.decline)


def is_worse(
    comparison: Comparison, gates: GateConfig, *, allowed: float, p: float | None = None
) -> bool:
    """The one rule for "worse".

    Args:
        comparison: of the two versions, with its counts.
        gates: ``alpha`` and ``max_drop``.
        allowed: a fall that is accepted however sure it is.
        p: of the comparison as one of several; its own if None.

    Returns:
        whether the fall is beyond ``allowed``, and either no accident (p ≤ alpha) or as large as
        ``max_drop``. Of several comparisons, so large a fall has to be likelier than not among
        them (p ≤ 1/2), which of one comparison it always is.
    """
    fall, p = _fall(comparison), comparison.p if p is None else p
    if fall <= as_written(allowed):
        return False
    return p <= gates.alpha or (p <= _LIKELY and fall >= as_written(gates.max_drop))


def find_failures(gates: GateConfig, measured: Verdict) -> tuple[Failure, ...]:
    """Name every gate a version does not pass, with the numbers.

    Args:
        gates: the terms.
        measured: with the version's score; None is what was not or cannot be measured.
    """
    val, failures = measured.challenger_val, []
    assert val is not None
    if Fraction(val.correct, val.total) < as_written(gates.min_accuracy):
        reason = f"accuracy {val.accuracy:.4f} is below gates.min_accuracy {gates.min_accuracy:.4f}"
        failures.append(Failure(gate="min_accuracy", reason=reason))
    if measured.comparison is not None:
        failures += [
            Failure(gate=gate, reason=_fall_in_words(gates, measured, gate))
            for gate in _falls(gates, measured.comparison, measured.decline)
        ]
    interval = measured.calibration_interval
    for gate, value, what in (
        (
            "max_calibration_error",
            interval and interval[0],
            f"the calibration error is {measured.calibration_error}, surely more than",
        ),
        ("max_bytes", measured.bytes, "the adapter's size in bytes is"),
        ("max_latency", measured.latency, "a forward, in forwards of the bare backbone, is"),
    ):
        limit = getattr(gates, gate)
        if limit is not None and value is not None and value > limit:
            reason = f"{what} {value:.6g}, above gates.{gate} {limit:.6g}"
            failures.append(Failure(gate=gate, reason=reason))
    if measured.classes is not None and not gates.accept_classes:
        # The last: where it is the only one, a person may accept it and nothing else.
        reason = (
            f"its classes are others: it {measured.classes} of version {measured.champion}; to"
            f" accept that: adapterbank promote {measured.task}@{measured.version}"
            " --accept-classes"
        )
        failures.append(Failure(gate="accept_classes", reason=reason))
    return tuple(failures)


def _falls(gates: GateConfig, comparison: Comparison, decline: Comparison | None) -> list[str]:
    """Name the gates that a fall does not pass: below the champion, or below the best there was."""
    found = [comparison] if decline is None else [comparison, decline]
    adjusted = holm([one.p for one in found])
    failed = []
    if is_worse(comparison, gates, allowed=gates.max_regression, p=adjusted[0]):
        failed.append("max_regression" if adjusted[0] <= gates.alpha else "max_drop")
    if gates.max_decline is None or (failed and decline is None):
        return failed
    if _declines(found[-1], gates, most=as_written(gates.max_decline), p=adjusted[-1]):
        failed.append("max_decline")
    return failed


def _declines(
    comparison: Comparison, gates: GateConfig, *, most: Fraction, p: float | None = None
) -> bool:
    """Whether a version is worse than another, by more than ``most`` or for sure."""
    fall, p = _fall(comparison), comparison.p if p is None else p
    allowed = as_written(gates.max_regression)  # also of many steps: what one may lose
    return fall > max(most, allowed) or (p <= gates.alpha and fall > allowed)


def _fall(comparison: Comparison) -> Fraction:
    """By how much of all images a version is worse: exactly, for it is held against limits."""
    lost, gained, total = comparison.lost, comparison.gained, comparison.total
    assert lost is not None
    assert gained is not None
    assert total is not None
    return Fraction(lost - gained, total)


def _fall_in_words(gates: GateConfig, measured: Verdict, gate: str) -> str:
    found, other = measured.comparison, "the champion's"
    if measured.champion_val is not None:
        other += f" {measured.champion_val.accuracy:.4f}"
    if gate == "max_decline" and measured.decline is not None:
        found, other = measured.decline, f"version {measured.best}'s, the best champion there was,"
    assert found is not None
    assert measured.challenger_val is not None
    words = (
        f"accuracy {measured.challenger_val.accuracy:.4f} is {-100 * found.difference:.1f} points"
        f" below {other} on the same images"
    )
    if gate == "max_drop":
        words += f", gates.max_drop {100 * gates.max_drop:.1f} or more"
    elif gate == "max_decline" and gates.max_decline is not None:
        words += f", gates.max_decline {100 * gates.max_decline:.1f} at most"
    return f"{words} (p {found.p:.2g}, {found.test})"
