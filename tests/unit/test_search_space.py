"""A space against its method: every point can be built, and what is pinned is not searched."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from adapterbank.bank.bank import Bank
from adapterbank.config.bank import parse_config
from adapterbank.config.search import Space
from adapterbank.errors import ConfigError, InputError, UnknownName
from adapterbank.search.space import PAPER, points, space_of, split_values
from tests.search_trials import LISTS

VAPT = {
    "prompts": [5, 10],
    "activation": ["relu", "gelu"],
    "residual": [True, False],
    "learning_rate": {"low": 1e-3, "high": 1.0, "log": True},
}
SEARCH = {"sampler": "random"}


def bank(
    task: dict[str, Any] | None = None,
    search: dict[str, Any] | None = SEARCH,  # never changed
    spaces: dict[str, Any] | None = None,
) -> Bank:
    """A bank of which only the configuration is there."""
    content = {
        "profile": "p",
        "profiles": {"p": {"search": search}},
        "spaces": {"vapt": VAPT} if spaces is None else spaces,
        "tasks": {"colours": {"data": "photos", **(task or {})}},
    }
    config = parse_config(yaml.safe_dump(content, sort_keys=False), where="params.yaml")
    return cast("Bank", SimpleNamespace(root=Path(), config=config))


def test_what_a_task_pins_is_not_searched() -> None:
    assert [*space_of(bank(), "colours")] == [*VAPT]
    pinned = bank({"hyper": {"prompts": 7}, "train": {"learning_rate": 0.1}})
    assert [*space_of(pinned, "colours")] == ["activation", "residual"]


def test_the_published_grid_needs_no_space_and_leaves_alone_what_is_pinned() -> None:
    paper = {"sampler": "paper", "trials": None}
    assert space_of(bank(search=paper, spaces={}), "colours") == PAPER
    pinned = bank({"train": {"weight_decay": 0.5}}, search=paper, spaces={})
    assert [*space_of(pinned, "colours")] == ["learning_rate", "recipe"]


def test_without_a_search_there_is_no_space() -> None:
    with pytest.raises(InputError, match="has no search"):
        space_of(bank(search=None), "colours")


@pytest.mark.parametrize(
    "task", [{"method": "vatp"}, {"train": {"recipe": "papr"}}], ids=["method", "recipe"]
)
def test_a_task_of_an_unknown_method_or_recipe_is_told_the_nearest(task: dict[str, Any]) -> None:
    with pytest.raises(UnknownName, match="Did you mean"):
        space_of(bank(task), "colours")


def test_each_wrong_value_is_said_under_its_name() -> None:
    wrong = bank(spaces={"vapt": {"prompts": [0, 5, -1], "rnak": [1], "weight_decay": [-1.0, 0.0]}})
    with pytest.raises(ConfigError) as caught:
        space_of(wrong, "colours")
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "prompts", "prompts", "rnak", "weight_decay"
    ]  # fmt: skip


def test_a_grid_over_a_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="a grid needs a list of values") as caught:
        space_of(bank(search={"sampler": "grid"}), "colours")
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["learning_rate"]


def test_true_and_one_are_two_values() -> None:
    twice = bank(spaces={"vapt": {"residual": [True, True]}})
    with pytest.raises(ConfigError, match="a value stands there twice"):
        space_of(twice, "colours")
    with pytest.raises(ConfigError, match="got 1"):  # refused for its type
        space_of(bank(spaces={"vapt": {"residual": [True, 1]}}), "colours")


@given(st.dictionaries(st.sampled_from("abcde"), st.integers(1, 4), min_size=1, max_size=4))
def test_a_grid_has_every_point_once(sizes: dict[str, int]) -> None:
    space: Space = {name: tuple(range(size)) for name, size in sizes.items()}
    found = points(space)
    expected = 1
    for size in sizes.values():
        expected *= size
    assert len(found) == len({tuple(p.items()) for p in found}) == expected
    assert all(list(point) == list(space) for point in found)


def test_values_are_split_into_the_methods_and_trainings() -> None:
    for point in (*points(LISTS), {"recipe": "paper", "batch_size": 4, "weight_decay": 0.0}):
        hyper, settings = split_values(point)
        assert hyper | settings == point
        assert not hyper.keys() & {"learning_rate", "weight_decay", "batch_size", "recipe"}
        assert not settings.keys() & {"prompts", "rank"}
