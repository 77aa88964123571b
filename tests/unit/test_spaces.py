"""What the configuration says of searches: all that is wrong is reported, under its key."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from adapterbank.config.bank import BankConfig, parse_config
from adapterbank.config.search import Range, SearchConfig
from adapterbank.errors import ConfigError


def parsed(search: dict[str, Any] | None = None, spaces: object = None) -> BankConfig:
    content: dict[str, Any] = {"profile": "p", "profiles": {"p": {"search": search}}}
    if spaces is not None:
        content["spaces"] = spaces
    return parse_config(yaml.safe_dump(content), where="params.yaml")


def problems(search: dict[str, Any] | None = None, spaces: object = None) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(search, spaces)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"low": 1.0, "high": 1.0}, "low 1 is not below high 1"),
        ({"low": 2.0, "high": 1.0}, "low 2 is not below high 1"),
        ({"low": 0.0, "high": 1.0, "log": True}, "starts above 0"),
        ({"low": 0.5, "high": 2.0, "integer": True}, "whole ends"),
        ({"low": 1.0, "high": 2.5, "integer": True}, "whole ends"),
        ({"low": 1.0, "high": float("inf")}, "finite"),
        ({"low": True, "high": 2.0}, "valid number"),
        ({"low": "1", "high": 2.0}, "valid number"),
    ],
)
def test_a_range_that_is_none_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Range.model_validate(wrong)


def test_a_space_of_lists_and_ranges_is_read_as_it_stands() -> None:
    spaces = parsed(
        spaces={
            "vapt": {
                "prompts": [5, 10],
                "activation": ["relu", "gelu"],
                "residual": [True, False],
                "learning_rate": {"low": 1e-3, "high": 1, "log": True},
            }
        }
    ).spaces
    assert spaces["vapt"] == {
        "prompts": (5, 10),
        "activation": ("relu", "gelu"),
        "residual": (True, False),
        "learning_rate": Range(low=1e-3, high=1.0, log=True),
    }
    assert [type(value) for value in spaces["vapt"]["residual"]] == [bool, bool]


def test_everything_wrong_is_said_at_once_with_the_nearest_key() -> None:
    told = problems(
        {"smapler": "random", "trails": 3, "reduction": 1, "gpus_per_trial": -1.0},
        {"vapt": {"prompts": [], "learning_rate": {"low": 0.1, "hihg": 1.0}, "rank": 4}},
    )
    for part in (
        "search.smapler: unknown key, did you mean 'sampler'?",
        "search.trails: unknown key, did you mean 'trials'?",
        "search.reduction: ",
        "search.gpus_per_trial: ",
        "spaces.vapt.prompts.list: ",
        "spaces.vapt.learning_rate.range.hihg: unknown key, did you mean 'high'?",
        "spaces.vapt.learning_rate.range.high: ",
        "spaces.vapt.rank: expected a list of values, or {low:, high:}, got 4",
    ):
        assert part in told, f"{part!r} is not in\n{told}"
    assert "function-" not in told
    assert "tuple[" not in told


@pytest.mark.parametrize("sampler", ["random", "optuna"])
def test_a_search_that_never_ends_by_itself_needs_a_number_of_trials(sampler: str) -> None:
    assert f"{sampler} never ends by itself" in problems({"sampler": sampler, "trials": None})


@pytest.mark.parametrize("sampler", ["grid", "paper"])
def test_a_grid_may_run_to_its_end(sampler: str) -> None:
    search = parsed({"sampler": sampler, "trials": None}).active.search
    assert search is not None
    assert search.trials is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"sampler": "bayes"},
        {"scheduler": "pbt"},
        {"trials": 0},
        {"trials": 1.5},
        {"epochs": 0},
        {"minutes": 0},
        {"grace": 0},
        {"max_parameters": 0},
        {"max_latency": 0.0},
        {"cpus_per_trial": 0.0},
        {"max_concurrent": 0},
        {"seed": -1},
        {"minutes": float("nan")},
    ],
    ids=str,
)
def test_a_setting_out_of_its_bounds_is_refused_under_its_key(wrong: dict[str, Any]) -> None:
    (key,) = wrong
    assert f"profiles.p.search.{key}: " in problems(wrong)


def test_no_search_is_what_a_profile_has_that_says_nothing() -> None:
    assert parsed().active.search is None
    assert SearchConfig().trials == 16
