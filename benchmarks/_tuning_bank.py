"""A throw-away bank to search in, and one search of it as the product runs it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from adapterbank.bank import scaffold
from adapterbank.bank.bank import Bank
from adapterbank.config.bank import PARAMS
from adapterbank.pipeline.backbone import fetch_backbone
from adapterbank.pipeline.prepare import prepare
from adapterbank.search.ledger import Trial
from adapterbank.search.study import Where, tune
from adapterbank.search.task_search import Standing
from benchmarks._tuning_cost import cost_of

METHOD = "vapt"


@dataclass(frozen=True, kw_only=True)
class Report:
    """One table, and the same figures for programs."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figures: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The bank's folder and what all its searches have in common."""

    root: Path
    tasks: tuple[str, ...]
    backbone: str  # URI
    size: int  # pixels
    images: int  # training images of a task at most; half as many to choose by
    batch: int
    epochs: int  # of a whole trial
    concurrent: int | None  # trials at once; None: as many as there is room for

    def bank(
        self, config: Mapping[str, Any], space: Mapping[str, Any], *, seed: int = 0
    ) -> Bank:  # fmt: skip
        """Write what is to be searched, and how, and open the bank."""
        profile = {
            "limits": {"train": self.images, "val": max(2, self.images // 2), "test": self.images},
            "train": {"epochs": self.epochs, "batch_size": self.batch},
            "search": {**config, "seed": seed},
        }
        tasks = {
            name: {"data": f"embedded://{name}", "method": METHOD, "seed": seed}
            for name in self.tasks
        }
        content = {
            "profile": "benchmark",
            "profiles": {"benchmark": profile},
            "backbone": {"uri": self.backbone, "size": [self.size, self.size]},
            "spaces": {METHOD: dict(space)},
            "tasks": tasks,
        }
        params = self.root / PARAMS
        params.parent.mkdir(parents=True, exist_ok=True)
        params.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        (self.root / "registry").mkdir(exist_ok=True)
        return Bank.open(self.root)

    def prepare(self, *, seed: int = 0) -> Bank:
        """Fetch the backbone and draw the images of a seed, in place of another's."""
        bank = self.bank({}, shipped_space(), seed=seed)
        fetch_backbone(bank)
        for task in self.tasks:
            prepare(bank, task)
        return bank


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What a search did."""

    trials: tuple[Trial, ...]  # in the order in which they ended
    seconds: float  # all of it
    start_s: float  # of these, until a worker had the first trial


class _Spent(KeyboardInterrupt):
    """A search has spent what it may; it is left as Ctrl-C leaves one, with its trials kept."""


class _Record:
    """Note the trials as they end, and end the search when they have cost enough."""

    def __init__(self, cost: int | None) -> None:
        self.trials: list[Trial] = []
        self.begun: float | None = None
        self._cost = cost

    def update(self, standing: Standing) -> None:
        """Note when the first trial had a worker."""
        if self.begun is None and standing.running:
            self.begun = time.perf_counter()

    def ended(self, task: str, trial: Trial) -> None:
        """Note a trial."""
        del task
        self.trials.append(trial)
        if self._cost is not None and sum(map(cost_of, self.trials)) >= self._cost:
            raise _Spent


def search(bank: Bank, task: str, where: Where, *, cost: int | None = None) -> Searched:
    """Search anew.

    Args:
        bank: with the search in its profile, prepared.
        task: to search for.
        where: resources.
        cost: epochs after which the search is ended, whatever it still has to try.
    """
    record = _Record(cost)
    begun = time.perf_counter()
    with suppress(_Spent):
        tune(bank, [task], record, where, earlier="discard")
    seconds = time.perf_counter() - begun
    started = record.begun if record.begun is not None else begun
    return Searched(trials=tuple(record.trials), seconds=seconds, start_s=started - begun)


def at_once(count: int | None) -> Where:
    """So many trials at a time, on one GPU together where there is one."""
    gpus = 1.0 / count if count is not None and torch.cuda.is_available() else None
    return Where(max_concurrent=count, gpus_per_trial=gpus)


def shipped_space() -> dict[str, Any]:
    """The space that a new bank has for the method."""
    template = Path(scaffold.__file__).parent / "templates" / "params.yaml"
    space: dict[str, Any] = yaml.safe_load(template.read_text(encoding="utf-8"))["spaces"][METHOD]
    return space
