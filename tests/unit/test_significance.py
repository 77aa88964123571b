"""P-values of several tests, and limits on counts that are exact."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbank.significance import as_written, holm

p_lists = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6)


@given(p_lists)
def test_adjusted_p_values_are_no_smaller_and_keep_their_order(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(a >= p for a, p in zip(adjusted, values, strict=True))
    order = sorted(range(len(values)), key=values.__getitem__)
    ranked = [adjusted[i] for i in order]
    assert ranked == sorted(ranked)
    assert min(adjusted) == pytest.approx(min(1.0, len(values) * min(values)))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))


@given(st.integers(1, 10_000), st.integers(0, 4))
def test_a_limit_is_the_decimal_number_that_was_written(numerator: int, digits: int) -> None:
    assert as_written(float(f"{numerator}e-{digits}")) == Fraction(numerator, 10**digits)
