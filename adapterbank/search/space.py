"""Which configurations a search of a task chooses among, checked before anything starts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

from adapterbank import catalog
from adapterbank.bank.bank import Bank
from adapterbank.bank.plan import TRAIN_KEYS, is_searched
from adapterbank.config.bank import PARAMS, TrainConfig, describe
from adapterbank.config.search import Domain, Range, SearchConfig, Space
from adapterbank.errors import ConfigError, InputError, UnknownName
from adapterbank.inference.artifact import METHODS, find_method, method_config
from adapterbank.training.recipes import find_recipe

Values = dict[str, Any]
"""One configuration: a value for every name of a space."""

PAPER: Space = {
    # arXiv 2501.18936 and the VPT protocol it follows: SGD, rate × batch / 256.
    "learning_rate": (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0),
    "weight_decay": (0.0, 1e-4, 1e-3, 1e-2),
    "recipe": ("paper",),
}


def search_of(bank: Bank) -> SearchConfig:
    """How the profile in use searches.

    Raises:
        InputError: it does not.
    """
    search = bank.config.active.search
    if search is None:
        raise InputError(
            f"the profile {bank.config.profile} has no search: its tasks use the hyper-parameters"
            " they are given",
            fix="use a profile that has one, in pipelines/params.yaml",
        )
    return search


def searchable(bank: Bank, task: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose what to search for: one task, or all that have something to choose.

    Args:
        bank: an open bank.
        task: its name; None means all.

    Returns:
        The names of the tasks that are searched, each with a space, and of those left out.

    Raises:
        ConfigError: a space is not one; see :func:`space_of`.
        InputError: there is no task, no search, or nothing to choose for any task.
        UnknownName: no such task, method or recipe.
    """
    names = [task] if task is not None else sorted(bank.config.tasks)
    if not names:
        raise InputError("the bank has no task", fix="adapterbank task add NAME --data FOLDER")
    search_of(bank)  # a profile without a search is no search with nothing to choose
    left_out = tuple(name for name in names if task is None and not is_searched(bank, name))
    if len(left_out) == len(names):
        raise InputError(
            f"none of the bank's tasks has anything to search: {', '.join(names)}",
            fix="adapterbank train TASK, or leave something of a task's method open",
        )
    searched = tuple(name for name in names if name not in left_out)
    for name in searched:
        space_of(bank, name)
    return searched, left_out


def space_of(bank: Bank, task: str) -> Space:
    """The space of a task: its method's, less what the task pins itself.

    Raises:
        ConfigError: it is empty, has names or values that the method does not know, or is a grid
            with a range; or the task's own hyper-parameters are wrong.
        InputError: the profile has no search.
        UnknownName: no such method or recipe.
    """
    section, search = bank.config.task(task), search_of(bank)
    if not find_recipe(bank.config.training(task), section.method).gradient:
        raise ConfigError(
            f"{PARAMS}: tasks.{task}",
            [f"{section.method} is solved in closed form: nothing to search"],
            fix="use a profile without a search for it",
        )
    method_config(section.method, section.hyper, where=f"{PARAMS}: tasks.{task}.hyper")
    pinned = section.hyper.keys() | section.train.keys()
    paper = search.sampler == "paper"
    whole = PAPER if paper else bank.config.spaces.get(section.method, {})
    space = {name: domain for name, domain in whole.items() if name not in pinned}
    where = f"{PARAMS}: spaces.{section.method}"
    if not space:
        why = f"all of it is pinned by the task {task}" if whole else "nothing to search"
        unknown = sorted(set(bank.config.spaces) - set(catalog.names(METHODS)))
        if unknown:  # likely a slip of the pen
            why += f"; {', '.join(unknown)}: no such method"
        raise ConfigError(
            where, [why], fix=f"list values of {section.method} there, or use a profile without"
            " a search"
        )  # fmt: skip
    problems = [
        f"{name}: {problem}"
        for name, domain in space.items()
        for problem in _problems(section.method, section.hyper, name, domain)
    ]
    if search.sampler == "grid":
        problems += [
            f"{name}: a grid needs a list of values, not a range"
            for name, domain in space.items()
            if isinstance(domain, Range)
        ]
    if problems:
        raise ConfigError(where, problems)
    return space


def split_values(values: Mapping[str, Any]) -> tuple[Values, Values]:
    """Split a configuration into the method's hyper-parameters and training's settings."""
    hyper = {name: value for name, value in values.items() if name not in TRAIN_KEYS}
    return hyper, {name: value for name, value in values.items() if name in TRAIN_KEYS}


def points(space: Space) -> tuple[Values, ...]:
    """Every configuration of a space of lists, the last name varying fastest."""
    lists = [domain for domain in space.values() if not isinstance(domain, Range)]
    return tuple(dict(zip(space, point, strict=True)) for point in itertools.product(*lists))


def draw(space: Space, generator: np.random.Generator) -> Values:
    """Draw one configuration, uniformly (in the logarithm, where a range says so)."""
    return {name: _draw(domain, generator) for name, domain in space.items()}


def _draw(domain: Domain, generator: np.random.Generator) -> Any:  # noqa: ANN401  # a choice
    if not isinstance(domain, Range):
        return domain[int(generator.integers(len(domain)))]
    low, high = domain.low, domain.high
    if domain.integer:
        low, high = low - 0.5, high + 0.5  # both ends as likely as the rest
    if domain.log:
        value = math.exp(generator.uniform(math.log(max(low, 1e-300)), math.log(high)))
    else:
        value = float(generator.uniform(low, high))
    if domain.integer:
        return int(min(max(round(value), domain.low), domain.high))
    return min(max(value, domain.low), domain.high)


def _problems(method: str, hyper: Mapping[str, Any], name: str, domain: Domain) -> list[str]:
    """What is wrong with a domain, each of its values tried beside the task's own."""
    fields = find_method(method).Config.model_fields
    if name not in fields and name not in TRAIN_KEYS:
        names = ", ".join(sorted({*fields, *TRAIN_KEYS}))
        return [f"{method} has no such hyper-parameter; known: {names}"]
    values: tuple[Any, ...]
    if isinstance(domain, Range):
        kind = int if domain.integer else float
        values = (kind(domain.low), kind(domain.high))
    else:
        values = domain
        # 1 and 1.0 are one value, 1 and true are two.
        if len({(isinstance(value, bool), value) for value in values}) < len(values):
            return ["a value stands there twice"]
    problems = []
    for value in values:
        try:
            if name in TRAIN_KEYS:
                settings = TrainConfig.model_validate({name: value})
                if not find_recipe(settings, method).gradient:
                    problems.append(f"{value!r} is solved in closed form: nothing to search")
            else:
                find_method(method).Config.model_validate({**hyper, name: value})
        except ValidationError as error:
            model = TrainConfig if name in TRAIN_KEYS else find_method(method).Config
            problems += describe(error, model)
        except UnknownName as error:
            problems.append(error.message)
    return problems
