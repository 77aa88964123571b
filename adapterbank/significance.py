"""P-values of several tests at once, and limits that counts are held against exactly."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust p-values for being several (Holm 1979); each may then be held against α itself."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = min(1.0, max(least, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return tuple(adjusted)


def as_written(limit: float) -> Fraction:
    """Return a limit as the decimal number that somebody wrote: 0.1 is a tenth.

    A share of counts held against it as a fraction is exact; as floats 8 of 10 is no full tenth
    below 9 of 10.

    >>> as_written(0.1)
    Fraction(1, 10)
    """
    return Fraction(str(limit))
