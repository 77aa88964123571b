"""Counts of two versions: against another implementation, by symmetry and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from adapterbank.errors import InputError
from adapterbank.records import Score
from adapterbank.release.unpaired import compare_counts

scores = st.integers(1, 80).flatmap(
    lambda n: st.builds(Score, correct=st.integers(0, n), total=st.just(n))
)


@given(scores, scores)
def test_the_test_is_scipys_of_the_table(challenger: Score, champion: Score) -> None:
    rows = [[one.correct, one.total - one.correct] for one in (challenger, champion)]
    expected = stats.fisher_exact(rows, alternative="less").pvalue
    assert compare_counts(challenger, champion).p_worse == pytest.approx(expected, abs=1e-9)


@given(scores, scores)
def test_swapping_the_two_turns_everything_round(challenger: Score, champion: Score) -> None:
    there, back = compare_counts(challenger, champion), compare_counts(champion, challenger)
    assert there.difference == -back.difference
    assert there.interval() == pytest.approx(tuple(-bound for bound in back.interval()[::-1]))
    assert there.p_worse + back.p_worse >= 1 - 1e-9  # both count the outcome itself


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    drawn = generator.binomial((60, 90), (0.7, 0.8), (3000, 2))
    covered = 0
    for mine, theirs in drawn.tolist():
        found = compare_counts(Score(correct=mine, total=60), Score(correct=theirs, total=90))
        low, high = found.interval()
        covered += low <= -0.1 <= high
    assert 0.94 <= covered / 3000 <= 0.97


def test_no_images_are_no_comparison() -> None:
    with pytest.raises(InputError, match="scores on 0 and 3 images"):
        compare_counts(Score(correct=0, total=0), Score(correct=1, total=3))
