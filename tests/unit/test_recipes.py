"""Recipes: the shape of their schedules, and that every number reaches the optimiser."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapterbank import catalog
from adapterbank.config.bank import TrainConfig
from adapterbank.errors import UnknownName
from adapterbank.training.recipes import RECIPES, Recipe, build_optimizer, find_recipe
from tests import tiny, toys

METHODS = catalog.names("adapterbank.methods")


def rates(recipe: Recipe, steps: int, epochs: int) -> list[float]:
    return [recipe.rate(step, steps, epochs) for step in range(steps * epochs)]


@given(name=st.sampled_from(sorted(RECIPES)), steps=st.integers(1, 20), epochs=st.integers(1, 50))
def test_a_rate_is_a_fraction_that_rises_once_and_then_falls(
    name: str, steps: int, epochs: int
) -> None:
    found = rates(RECIPES[name], steps, epochs)
    assert all(0.0 <= rate <= 1.0 for rate in found)
    peak = found.index(max(found))
    assert all(before <= after for before, after in pairwise(found[: peak + 1]))
    assert all(before >= after for before, after in pairwise(found[peak:]))


def test_the_warm_up_is_linear_in_steps_and_reaches_the_full_rate() -> None:
    found = rates(Recipe(warm_up=0.25, schedule="step"), steps=10, epochs=4)
    expected = [(step + 1) / 10 for step in range(10)]
    assert found[:10] == pytest.approx(expected, abs=1e-12)  # float64
    assert max(found) == found[9] == 1.0


def test_without_a_warm_up_the_rate_falls_from_the_first_step() -> None:
    found = rates(Recipe(warm_up=0.0, schedule="step"), steps=10, epochs=4)
    assert found[0] == max(found)
    assert found[0] > 0.99


@pytest.mark.parametrize(
    ("steps", "epochs", "full"),
    [(10, 2, 0.008), (10, 5, 0.125), (10, 10, 1.0), (10, 40, 0.25), (50, 4, 1.0), (1, 20, 0.008)],
)
def test_few_steps_are_smaller_by_their_cube_and_many_epochs_in_proportion(
    steps: int, epochs: int, full: float
) -> None:
    recipe = Recipe(full_rate_steps=100, full_rate_epochs=10, warm_up=0.5)
    assert max(rates(recipe, steps, epochs)) == pytest.approx(full)


def test_the_cosine_is_halfway_down_in_the_middle_and_ends_at_zero() -> None:
    found = rates(Recipe(warm_up=0.2, schedule="step"), steps=10, epochs=10)
    assert found[59] == pytest.approx(0.5, abs=1e-12)  # float64; steps 20 to 100 are the cosine
    assert found[-1] == pytest.approx(0.0, abs=1e-12)  # float64


def test_the_published_schedule_starts_at_exactly_zero_and_changes_once_an_epoch() -> None:
    recipe = RECIPES["paper"]
    found = rates(recipe, steps=7, epochs=100)
    epochs = [found[start : start + 7] for start in range(0, 700, 7)]
    assert all(len(set(epoch)) == 1 for epoch in epochs)
    by_epoch = [epoch[0] for epoch in epochs]
    # Ten epochs of warm-up, then a cosine over ninety (arXiv 2501.18936's released code).
    assert by_epoch[:11] == pytest.approx([number / 10 for number in range(11)], abs=1e-12)
    assert by_epoch[0] == 0.0
    assert by_epoch[55] == pytest.approx(0.5, abs=1e-12)  # float64
    assert 0.0 < by_epoch[99] < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_is_optimised_exactly_once(method: str) -> None:
    adapter = toys.start(method, tiny.backbone("plain"))
    optimizer = build_optimizer(find_recipe(TrainConfig(), method), adapter, batch_size=8)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(map(id, adapter.parameters()))


def groups(recipe: Recipe, batch_size: int = 8) -> dict[str, tuple[float, float]]:
    """Full rate and decay of each of VAPT's parameters."""
    adapter = toys.start("vapt", tiny.backbone("plain"))
    optimizer = build_optimizer(recipe, adapter, batch_size)
    names = {id(parameter): name for name, parameter in adapter.named_parameters()}
    return {
        names[id(group["params"][0])]: (group["initial_lr"], group["weight_decay"])
        for group in optimizer.param_groups
    }


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_multipliers_reach_their_parameters_only_and_decay_all(kind: str) -> None:
    recipe = Recipe(
        optimizer="sgd" if kind == "sgd" else "adamw",
        learning_rate=0.5,
        weight_decay=0.25,
        multipliers={"alpha": 4.0, "head.bias": 0.5, "nobody_has_this": 9.0},
    )
    found = groups(recipe)
    assert found.pop("alpha") == (2.0, 0.25)
    assert found.pop("head.bias") == (0.25, 0.25)
    assert set(found.values()) == {(0.5, 0.25)}


def test_a_relative_rate_is_a_fraction_of_how_large_a_tensor_starts() -> None:
    recipe = Recipe(learning_rate=0.1, multipliers={"alpha": 0.5}, scales={"norm_bias": 3.0})
    adapter = toys.start("vapt", tiny.backbone("plain"))
    parameters = dict(adapter.named_parameters())
    with torch.no_grad():
        parameters["alpha"].fill_(-4.0)
        parameters["first"].mul_(8.0)
    found = {
        name: group["initial_lr"]
        for name, group in zip(
            parameters, build_optimizer(recipe, adapter, 8).param_groups, strict=True
        )
    }
    assert found["alpha"] == pytest.approx(0.1 * 0.5 * 4.0)
    first = float(parameters["first"].detach().square().mean().sqrt())
    assert found["first"] == pytest.approx(0.1 * first, rel=1e-6)  # float32 means
    assert found["norm_bias"] == pytest.approx(0.1 * 3.0)  # it starts at zero
    assert found["bias"] == pytest.approx(0.1)  # of which nothing is said: scale one


def test_the_linear_scaling_rule_scales_by_the_batch() -> None:
    scaled = groups(Recipe(learning_rate=0.5, per_batch_of=256), batch_size=64)
    plain = groups(Recipe(learning_rate=0.5), batch_size=64)
    assert scaled["first"][0] == 0.125
    assert plain["first"][0] == 0.5


def test_the_published_optimiser_is_sgd_with_momentum() -> None:
    adapter = toys.start("vapt", tiny.backbone("plain"))
    optimizer = build_optimizer(RECIPES["paper"], adapter, batch_size=64)
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}


def test_a_tasks_own_rate_and_decay_stand_on_top_of_the_recipe() -> None:
    plain = find_recipe(TrainConfig(recipe="paper"), "vapt")
    own = find_recipe(TrainConfig(recipe="paper", learning_rate=0.125, weight_decay=0.0), "vapt")
    assert plain == RECIPES["paper"]
    assert (own.learning_rate, own.weight_decay) == (0.125, 0.0)
    assert (own.optimizer, own.schedule) == (plain.optimizer, plain.schedule)


def test_an_unknown_recipe_lists_its_neighbours() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'paper'") as caught:
        find_recipe(TrainConfig(recipe="papre"), "vapt")
    assert caught.value.known == tuple(sorted(RECIPES))


def test_a_linear_probes_default_is_its_closed_form_and_no_other_methods() -> None:
    without_gradient = {
        method for method in METHODS if not find_recipe(TrainConfig(), method).gradient
    }
    assert without_gradient == {"linear"}
    assert find_recipe(TrainConfig(recipe="paper"), "linear").gradient


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_written_into_a_versions_configuration(name: str) -> None:
    recipe = RECIPES[name]
    read = json.loads(json.dumps(recipe.as_json()))
    assert Recipe(**read) == recipe


def test_a_run_of_a_single_step_trains() -> None:
    assert Recipe().rate(0, 1, 1) == 1.0
