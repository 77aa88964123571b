"""What a search found and how training takes it up: the contract of ``work/<task>/best.json``.

Whatever searches writes the file; training reads it. Neither knows the other.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass as checked

from adapterbank import durable
from adapterbank.bank.bank import Bank, read_json, read_note, write_json
from adapterbank.config.bank import PARAMS, TrainConfig, describe
from adapterbank.data.store import stored_digest
from adapterbank.errors import InputError
from adapterbank.records import Score
from adapterbank.training.recipes import find_recipe

BEST = "best.json"
TRIALS = "trials.csv"
TRAIN_KEYS = ("learning_rate", "weight_decay", "batch_size", "recipe")
"""Names of a search space that are training's; all others are the method's hyper-parameters."""

NOT_DECIDING = frozenset({"cpus_per_trial", "gpus_per_trial", "max_concurrent"})
"""Settings of where and how fast trials run, on which what they give does not depend; the wall
time decides."""

_STRICT = ConfigDict(extra="forbid")


@checked(frozen=True, kw_only=True, config=_STRICT)
class Budget:
    """What a search was allowed and what it spent, stated beside every figure it led to."""

    sampler: str
    scheduler: str
    trials: int  # that were started
    epochs: int  # over all trials


@checked(frozen=True, kw_only=True, config=_STRICT)
class Winner:
    """The configuration a search chose, by its score on the validation images.

    Nothing in it differs between searches that chose alike: no times, no latencies.
    """

    schema: Literal[1] = 1
    task: str
    identity: str  # of the search, see search_identity
    trial: int
    values: dict[str, Any]  # what was searched
    val: Score  # of the trial, which trained without the validation images
    budget: Budget


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a task's adapter is to be trained: its configuration with a search's winner in it."""

    hyper: dict[str, Any]
    training: TrainConfig
    winner: Winner | None

    @property
    def refit(self) -> bool:
        """Whether the final weights see the validation images too."""
        return self.training.fit == "train+val"


def is_searched(bank: Bank, task: str) -> bool:
    """Whether the profile's search has anything to choose for a task.

    It has not where the method is solved in closed form, nor where the task pins all that the
    space of its method has. A method without a space is no such case, but an omission, which the
    search reports.

    Raises:
        UnknownName: no such task, method or recipe.
    """
    section, search = bank.config.task(task), bank.config.active.search
    if search is None or not find_recipe(bank.config.training(task), section.method).gradient:
        return False
    space = bank.config.spaces.get(section.method, {})
    pinned = section.hyper.keys() | section.train.keys()
    return search.sampler == "paper" or not space or not space.keys() <= pinned


def plan_of(bank: Bank, task: str) -> Plan:
    """Merge a task's configuration with what the search of its profile found.

    Raises:
        InputError: the profile has a search and this task's has not been run, or was run with
            other data or settings.
    """
    section, training = bank.config.task(task), bank.config.training(task)
    if not is_searched(bank, task):
        if training.fit == "train+val":
            raise InputError(
                f"{PARAMS}: train.fit of {task} is train+val, which leaves no image to judge by"
                " where no search judged before",
                fix=f"set it to train for {task}, or give the profile a search that has something"
                " to choose for it",
            )
        return Plan(hyper=dict(section.hyper), training=training, winner=None)
    winner = read_winner(bank, task)
    if winner is None:
        raise InputError(f"work/{task}/{BEST}: written without a search", fix=_fix(task))
    if winner.identity != search_identity(bank, task):
        raise InputError(
            f"work/{task}/{BEST} was found by a search of other data or settings", fix=_fix(task)
        )
    hyper = {**section.hyper, **winner.values}
    chosen = {key: hyper.pop(key) for key in TRAIN_KEYS if key in winner.values}
    # The search judged on the validation images, so the final weights may see them.
    configured = "fit" in section.train or "fit" in bank.config.active.train.model_fields_set
    fit = training.fit if configured else "train+val"
    try:
        settings = TrainConfig.model_validate({**training.model_dump(), **chosen, "fit": fit})
    except ValidationError as error:
        problems = "; ".join(describe(error, TrainConfig))
        raise InputError(f"work/{task}/{BEST}: damaged: {problems}", fix=_fix(task)) from error
    return Plan(hyper=hyper, training=settings, winner=winner)


def search_identity(bank: Bank, task: str) -> str:
    """Hash all that decides what a search would try and how it would judge it.

    Raises:
        InputError: the data is not prepared.
    """
    config, section = bank.config, bank.config.task(task)
    search = config.active.search
    parts = {
        "search": None if search is None else search.model_dump(exclude=set(NOT_DECIDING)),
        "space": [  # in its order, in which a grid goes and values are drawn
            (name, domain if isinstance(domain, tuple) else domain.model_dump())
            for name, domain in config.spaces.get(section.method, {}).items()
        ],
        "method": section.method,
        "hyper": section.hyper,
        "train": config.training(task).model_dump(exclude={"device", "fit"}),
        "seed": section.seed,
        "data": stored_digest(bank.data(task)),
        "backbone": bank.registry.backbone().fingerprint,
    }
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_winner(bank: Bank, task: str) -> Winner | None:
    """Read a task's winner; None where the hyper-parameters were pinned.

    Raises:
        InputError: the file is missing or damaged.
    """
    fix = _fix(task)
    content = read_json(bank.note(task, BEST), fix=fix)
    if content == _PINNED:
        return None
    return read_note(bank.note(task, BEST), Winner, fix=fix)


def write_winner(bank: Bank, winner: Winner) -> None:
    """Let training of the task take up this winner."""
    write_json(bank.note(winner.task, BEST), asdict(winner))


def write_pinned(bank: Bank, task: str) -> None:
    """Let training of the task use the hyper-parameters it is given."""
    write_json(bank.note(task, BEST), dict(_PINNED))
    durable.replace_file(bank.note(task, TRIALS), b"trial\n")  # a table of none


_PINNED = {"schema": 1, "pinned": True}


def _fix(task: str) -> str:
    return f"adapterbank tune {task}"
