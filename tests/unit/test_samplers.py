"""Samplers: pure, under the ceilings, without repetition, and the same after a restart."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterbank.config.search import Range, SearchConfig, Space
from adapterbank.search.ledger import Trial
from adapterbank.search.samplers import Sampler, make_sampler
from adapterbank.search.space import PAPER, Values, draw, points
from tests.search_trials import LISTS, MIXED, ended, everything, proposals, scored, worth

SAMPLERS = ("random", "optuna", "grid")


def sampler_of(name: str, seed: int = 0, trials: int = 8) -> Sampler:
    config = SearchConfig.model_validate({"sampler": name, "seed": seed, "trials": trials})
    return make_sampler(config, LISTS if name == "grid" else MIXED)


@pytest.mark.parametrize("name", SAMPLERS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31 - 1), stop=st.integers(0, 7))
def test_a_search_that_goes_on_proposes_what_it_would_have_proposed(
    name: str, seed: int, stop: int
) -> None:
    whole = proposals(sampler_of(name, seed), 8)
    assert len(whole) == 8
    # What a ledger gives back went through JSON.
    kept = [replace(trial, values=json.loads(json.dumps(trial.values))) for trial in whole[:stop]]
    assert proposals(sampler_of(name, seed), 8, kept) == whole


@pytest.mark.parametrize("name", SAMPLERS)
def test_asking_twice_gives_the_same_and_asking_before_changes_nothing(name: str) -> None:
    trials = proposals(sampler_of(name), 5)
    fresh, used = sampler_of(name), sampler_of(name)
    for number in range(5):
        used(trials[:number], everything)
    assert used(trials, everything) == fresh(trials, everything)


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_still_runs_is_not_proposed_again(name: str) -> None:
    sampler = sampler_of(name)
    running: list[Trial] = []
    for number in range(8):
        values = sampler(running, everything)
        assert values is not None
        assert values not in [trial.values for trial in running]
        running.append(ended(number, [], values=values, state="started"))


@pytest.mark.parametrize("name", SAMPLERS)
@settings(max_examples=10)
@given(most=st.integers(1, 20), seed=st.integers(0, 1000))
def test_nothing_is_proposed_over_a_ceiling_nor_twice(name: str, most: int, seed: int) -> None:
    def allowed(values: Values) -> bool:
        return bool(values["prompts"] <= most)

    sampler, trials = sampler_of(name, seed), list[Trial]()
    while len(trials) < 12:
        values = sampler(trials, allowed)
        if values is None:
            break
        assert allowed(values)
        assert values not in [trial.values for trial in trials]
        trials.append(scored(len(trials), values, worth(values)))
    assert bool(trials) == (most >= 2)


@pytest.mark.parametrize("name", ["random", "optuna", "grid"])
def test_a_small_space_is_used_up_and_then_there_is_nothing(name: str) -> None:
    space: Space = {"prompts": (2, 4), "residual": (True, False)}
    sampler = make_sampler(SearchConfig.model_validate({"sampler": name, "trials": 50}), space)
    tried = [trial.values for trial in proposals(sampler, 50)]
    assert sorted(map(repr, tried)) == sorted(map(repr, points(space)))


def test_other_seeds_search_elsewhere() -> None:
    for name in ("random", "optuna"):
        assert proposals(sampler_of(name, 0), 4) != proposals(sampler_of(name, 1), 4)


def test_a_grid_goes_in_order_with_the_last_name_fastest() -> None:
    found = [one.values for one in proposals(sampler_of("grid"), 100)]
    assert found == [
        {"prompts": prompts, "rank": rank, "learning_rate": rate}
        for prompts in (2, 4, 8, 16)
        for rank in (1, 2, 3, 4)
        for rate in (0.01, 0.1)
    ]


def test_paper_is_ten_learning_rates_by_four_weight_decays_and_no_more() -> None:
    found = proposals(make_sampler(SearchConfig(sampler="paper", trials=None), PAPER), 1000)
    rates = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0)
    decays = (0.0, 1e-4, 1e-3, 1e-2)
    assert len(found) == 40
    assert [(one.values["learning_rate"], one.values["weight_decay"]) for one in found] == list(
        itertools.product(rates, decays)
    )
    assert {one.values["recipe"] for one in found} == {"paper"}


@given(
    low=st.floats(1e-8, 1e3), factor=st.floats(1.001, 1e6), log=st.booleans(), seed=st.integers(0)
)
def test_a_draw_stays_in_its_range(
    low: float, factor: float, log: bool, seed: int
) -> None:  # hypothesis passes it by name
    high = low * factor
    generator = np.random.default_rng(seed)
    for _ in range(20):
        value = draw({"x": Range(low=low, high=high, log=log)}, generator)["x"]
        assert isinstance(value, float)
        assert low <= value <= high


@pytest.mark.parametrize("log", [False, True])
def test_whole_numbers_reach_both_ends(log: bool) -> None:  # a parameter
    generator = np.random.default_rng(0)
    domain = Range(low=1, high=4, integer=True, log=log)
    found = [draw({"x": domain}, generator)["x"] for _ in range(400)]
    assert {type(value) for value in found} == {int}
    assert set(found) == {1, 2, 3, 4}
    if not log:  # each as likely as the others: ± 5 standard deviations
        assert all(abs(found.count(value) - 100) < 45 for value in (1, 2, 3, 4))


def test_a_logarithmic_range_has_as_many_in_each_decade() -> None:
    generator = np.random.default_rng(0)
    domain = Range(low=1e-4, high=1e-1, log=True)
    found = [math.log10(draw({"x": domain}, generator)["x"]) for _ in range(900)]
    counts = [sum(1 for x in found if low <= x < low + 1) for low in (-4, -3, -2)]
    assert all(abs(count - 300) < 75 for count in counts), counts


def test_optuna_learns_where_it_is_good() -> None:
    """After its random start it proposes better values than random draws do."""

    def score(values: Values) -> float:
        return 1.0 - abs(math.log10(values["learning_rate"]) + 2.5) / 2

    def best_half(name: str) -> float:
        sampler, trials = sampler_of(name, trials=24), list[Trial]()
        for number in range(24):
            values = sampler(trials, everything)
            assert values is not None
            trials.append(scored(number, values, score(values)))
        return float(np.mean([trial.score for trial in trials[12:]]))

    assert best_half("optuna") > best_half("random") + 0.1
