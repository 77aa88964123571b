"""The one rule for "worse", and the gates on a version's own figures."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapterbank.config.bank import parse_config
from adapterbank.config.gates import GateConfig
from adapterbank.records import Score
from adapterbank.registry.verdicts import ClassChange, Verdict
from adapterbank.release.compare import compare_pairs
from adapterbank.release.gates import (
    contrast,
    find_best,
    find_failures,
    is_worse,
    passes_accuracy,
)
from benchmarks.gates import count_refused, ten_releases
from tests.source import ROOT

GATES = GateConfig()
SCORE = Score(correct=80, total=100)


def measured(val: Score, **figures: Any) -> Verdict:  # noqa: ANN401  # of a verdict
    """Make the verdict on a version that was measured."""
    return Verdict(task="pets", version=2, champion=1, outcome="promoted", reason="",
                   challenger_val=val, **figures)  # fmt: skip


def worse(total: int, gained: int, lost: int, gates: GateConfig = GATES) -> bool:
    return is_worse(compare_pairs(total, gained, lost), gates, allowed=gates.max_regression)


def refusal_probability(images: int, differing: float, gates: GateConfig) -> float:
    """Sum the chances of all outcomes that the rule refuses, if neither version is better."""
    most = int(images * differing + 6 * math.sqrt(images * differing)) + 1
    total = 0.0
    for number in range(min(most, images) + 1):
        drawn = math.comb(images, number) * differing**number * (1 - differing) ** (images - number)
        for lost in range(number + 1):
            chance = drawn * math.comb(number, lost) / 2**number
            if chance > 1e-7 and worse(images, number - lost, lost, gates):
                total += chance
    return total


def test_a_fall_within_the_limit_is_accepted_however_sure_it_is() -> None:
    found = compare_pairs(100_000, gained=0, lost=400)
    assert found.p < 1e-100
    assert not is_worse(found, GATES, allowed=0.005)
    assert is_worse(found, GATES, allowed=0.003)


def test_a_fall_beyond_the_limit_that_may_be_an_accident_is_accepted() -> None:
    assert compare_pairs(100, gained=1, lost=5).p > GATES.alpha
    assert not worse(100, gained=1, lost=5)
    assert compare_pairs(100, gained=0, lost=5).p < GATES.alpha
    assert worse(100, gained=0, lost=5)


def test_a_large_fall_is_refused_however_few_images_say_so() -> None:
    assert compare_pairs(10, gained=0, lost=1).p == 0.5
    assert worse(10, gained=0, lost=1)  # a tenth of all
    assert not worse(11, gained=0, lost=1)


def test_a_limit_beyond_the_largest_fall_is_a_limit_all_the_same() -> None:
    lenient = GateConfig(max_regression=1.0)
    assert not worse(10, gained=0, lost=10, gates=lenient)


counts = st.integers(0, 40)


@given(gained=counts, lost=counts, more=st.integers(1, 20))
def test_losing_more_images_never_helps(gained: int, lost: int, more: int) -> None:
    if worse(200, gained, lost):
        assert worse(200, gained, lost + more)
        assert worse(200, max(gained - more, 0), lost)


@given(gained=counts, fewer=counts)
def test_who_is_no_worse_on_these_images_is_never_refused(gained: int, fewer: int) -> None:
    assert not worse(200, gained, max(gained - fewer, 0), GateConfig(max_regression=0.0))


@pytest.mark.parametrize(("images", "differing"), [(80, 0.05), (80, 0.15), (200, 0.2), (500, 0.1)])
def test_a_version_as_good_is_refused_in_less_than_alpha_of_all_cases(
    images: int, differing: float
) -> None:
    found = refusal_probability(images, differing, GATES)
    assert 0 < found <= GATES.alpha
    # Without the limit for few images it is the level of the test alone.
    assert refusal_probability(images, differing, GateConfig(max_drop=1.0)) <= found


def test_a_smaller_largest_fall_would_refuse_good_versions() -> None:
    assert refusal_probability(100, 0.15, GateConfig(max_drop=0.03)) > 0.2


@pytest.mark.parametrize(
    ("images", "differing"), [(1000, 0.04), (1000, 0.06), (2000, 0.1), (5000, 0.15)]
)
def test_a_planted_fall_of_3_points_is_refused_and_no_change_passes(
    images: int, differing: float
) -> None:
    """100 bootstrap repeats each way; 1,000 images are enough where 6 % of the answers differ."""
    assert count_refused(images, differing, fall=0.03, gates=GATES) >= 95
    assert count_refused(images, differing, fall=0.0, gates=GATES) <= 5


@pytest.mark.parametrize("images", range(10, 3000, 70))
def test_a_fall_of_exactly_max_drop_is_refused_whatever_the_numbers(images: int) -> None:
    """As floats 8 of 10 is less than a tenth below 9 of 10."""
    assert worse(images, gained=images // 20, lost=images // 20 + images // 10)
    assert not worse(images, gained=0, lost=images // 10 - 1, gates=GateConfig(alpha=1e-300))


@pytest.mark.parametrize("right", range(0, 1000, 37))
def test_who_has_exactly_min_accuracy_passes(right: int) -> None:
    gates = GateConfig(min_accuracy=right / 1000)
    exact, less = (measured(Score(correct=right - n, total=1000)) for n in (0, 1))
    assert find_failures(gates, exact) == ()
    assert [one.gate for one in find_failures(gates, less)] == ["min_accuracy"]


@pytest.mark.parametrize("images", [80, 200, 1000])
def test_small_falls_do_not_add_up(images: int) -> None:
    """By a comparison with the present champion alone ten of 2 points lose 18, 16 and 6."""
    generator = np.random.default_rng(images)
    chains = [ten_releases(images, 0.02, GATES, generator) for _ in range(30)]
    assert GATES.max_decline is not None
    below = [
        max(int(one.sum()) for one in champions) - int(champions[-1].sum()) for champions in chains
    ]
    assert max(below) <= 1.5 * GATES.max_decline * images
    # On average of what they lose in truth, 2 points with each that passed, as well.
    assert np.mean([2 * (len(champions) - 1) for champions in chains]) <= 200 * GATES.max_decline


@pytest.mark.parametrize("images", [80, 200, 1000])
def test_of_ten_versions_as_good_as_the_champion_nine_pass(images: int) -> None:
    generator = np.random.default_rng(images)
    passed = [len(ten_releases(images, 0.0, GATES, generator)) - 1 for _ in range(40)]
    assert np.mean(passed) >= 9.0


def test_the_best_champion_is_not_the_luckiest_of_many_as_good() -> None:
    generator = np.random.default_rng(0)
    easy = generator.random(200)  # 15 % of the images are right by chance
    drawn = [np.where(easy < 0.15, generator.random(200) < 0.5, easy < 0.9) for _ in range(40)]
    best = drawn[find_best(drawn, GATES)]
    mean = float(np.mean([one.mean() for one in drawn]))
    assert best.mean() < max(one.mean() for one in drawn)
    assert abs(best.mean() - mean) < 0.04


def test_the_best_champion_is_the_first_that_none_beats_clearly() -> None:
    order = np.arange(100)
    scores = (60, 62, 70, 69, 60)  # of which the third beats the first, and none the third
    champions = [order < right for right in scores]
    assert find_best(champions, GATES) == 2
    assert find_best(champions, GateConfig(max_decline=None)) == len(champions) - 1
    found = contrast(GATES, order < 58, champions)
    assert (found.best, found.decline and found.decline.lost) == (2, 12)
    assert contrast(GATES, order < 58, champions[:3]).decline is None


def test_who_is_a_little_below_the_champion_and_far_below_the_best_is_refused() -> None:
    order = np.arange(80)
    best, champion, challenger = (order < right for right in (70, 66, 62))
    assert passes_accuracy(GATES, champion, [best])
    assert passes_accuracy(GateConfig(alpha=0.001, max_decline=None), challenger, [best, champion])
    gates = GateConfig(alpha=0.001)
    assert not passes_accuracy(gates, challenger, [best, champion])
    found = contrast(gates, challenger, [best, champion])
    verdict = measured(Score(correct=62, total=80), champion_val=Score(correct=66, total=80),
                       best=1, comparison=found.comparison, decline=found.decline)  # fmt: skip
    (failure,) = find_failures(gates, verdict)
    assert failure.gate == "max_decline"
    assert "10.0 points below version 1's, the best champion there was" in failure.reason


def test_a_bank_that_accepts_every_fall_accepts_it_from_the_best_too() -> None:
    order = np.arange(80)
    assert passes_accuracy(GateConfig(max_regression=1.0), order < 0, [order < 80, order < 10])


def test_other_classes_are_refused_last_and_only_where_nobody_accepts_them() -> None:
    change = ClassChange(added=("dog",), removed=("cat",), renamed=(("cow", "ox"),))
    found = measured(SCORE, classes=change, bytes=5)
    failures = find_failures(GateConfig(max_bytes=4), found)
    assert [one.gate for one in failures] == ["max_bytes", "accept_classes"]
    assert "lacks cat and adds dog and calls cow ox" in failures[1].reason
    assert "promote pets@2 --accept-classes" in failures[1].reason
    assert find_failures(GateConfig(accept_classes=True), found) == ()


@pytest.mark.parametrize(
    ("gate", "limit", "found"),
    [
        ("min_accuracy", 0.9, measured(SCORE)),
        (
            "max_calibration_error",
            0.05,
            measured(SCORE, calibration_error=0.09, calibration_interval=(0.06, 0.12)),
        ),
        ("max_bytes", 1000, measured(SCORE, bytes=1001)),
        ("max_latency", 1.5, measured(SCORE, latency=1.6)),
    ],
)
def test_a_gate_names_itself_with_both_numbers(gate: str, limit: float, found: Verdict) -> None:
    gates = GateConfig.model_validate({gate: limit})
    (failure,) = find_failures(gates, found)
    assert failure.gate == gate
    bound = None if found.calibration_interval is None else found.calibration_interval[0]
    value = bound or found.bytes or found.latency or SCORE.accuracy
    assert f"{value:g}" in failure.reason
    assert f"gates.{gate} {limit:g}" in failure.reason
    assert find_failures(GATES, found) == ()


def test_what_is_just_at_its_limit_passes() -> None:
    gates = GateConfig(min_accuracy=0.8, max_calibration_error=0.1, max_bytes=10, max_latency=1.0)
    found = measured(
        SCORE, calibration_error=0.2, calibration_interval=(0.1, 0.3), bytes=10, latency=1.0
    )
    assert find_failures(gates, found) == ()


def test_every_gate_that_fails_is_named_and_the_fall_says_its_test() -> None:
    found = measured(
        Score(correct=60, total=100),
        champion_val=SCORE,
        comparison=compare_pairs(100, gained=2, lost=22),
        bytes=5,
    )
    failures = find_failures(GateConfig(min_accuracy=0.7, max_bytes=4), found)
    assert [one.gate for one in failures] == ["min_accuracy", "max_regression", "max_bytes"]
    assert "20.0 points below the champion's 0.8000" in failures[1].reason
    assert "mcnemar" in failures[1].reason
    few = replace(found, comparison=compare_pairs(10, gained=0, lost=2))
    assert [one.gate for one in find_failures(GATES, few)] == ["max_drop"]


@pytest.mark.parametrize(
    "wrong", [{"alpha": 0.0}, {"alpha": 1.0}, {"max_drop": 0.0}, {"max_bytes": 0},
              {"max_latency": 0.9}, {"max_routing_drop": -0.1}, {"max_new_task_drop": 1.1},
              {"max_calibration_error": 2.0}, {"max_drop": None}, {"max_decline": -0.1},
              {"min_images": 0}, {"accept_classes": "some"}],
    ids=str,
)  # fmt: skip
def test_terms_that_mean_nothing_are_refused(wrong: dict[str, float | None]) -> None:
    with pytest.raises(ValidationError):
        GateConfig.model_validate(wrong)


@pytest.mark.parametrize(
    "path", ["pipelines/params.yaml", "adapterbank/bank/templates/params.yaml"]
)
def test_the_gates_that_params_files_spell_out_are_the_defaults(path: str) -> None:
    config = parse_config((ROOT / path).read_text(), where=path)
    assert config.gates == GATES
    assert yaml.safe_load((ROOT / path).read_text())["gates"].keys() == GATES.model_dump().keys()
