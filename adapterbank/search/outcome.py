"""What configurations cost when they are served, which trial wins, and which nobody beats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adapterbank.backbones.base import Backbone
from adapterbank.errors import InputError
from adapterbank.inference.artifact import build_adapter
from adapterbank.inference.latency import blank_images, relative_latency
from adapterbank.methods.base import Adapter, count_parameters
from adapterbank.search.ledger import Trial
from adapterbank.search.space import Values, split_values
from adapterbank.text import csv_text


class Costs:
    """Costs of a task's configurations when they are served, known before a trial starts.

    Latency is a ratio measured turn by turn in this process, because a shared machine's
    milliseconds mean little. What is measured once stays so: a search that goes on must refuse
    what it refused before.

    Args:
        backbone: the bank's.
        method: of the task.
        hyper: what the task pins.
        classes: how many.
        latencies: what an earlier process measured.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: str,
        hyper: Mapping[str, Any],
        classes: int,
        latencies: Mapping[str, float] | None = None,
    ) -> None:
        self._backbone = backbone
        self._method = method
        self._hyper = dict(hyper)
        self._classes = classes
        self._latencies = dict(latencies or {})
        self._counts: dict[str, int] = {}
        self._images = blank_images(backbone)

    @property
    def latencies(self) -> dict[str, float]:
        """What was measured, for a later process."""
        return dict(sorted(self._latencies.items()))

    def count(self, values: Values) -> int | None:
        """Trained numbers without the head; None where the configuration does not fit."""
        key = json.dumps(split_values(values)[0], sort_keys=True, default=str)
        if key not in self._counts:
            try:
                adapter = self._build(values)
            except InputError:
                return None
            self._counts[key] = count_parameters(adapter)[0]
        return self._counts[key]

    def latency(self, values: Values) -> float:
        """Forward time over the bare backbone's; measured once for each shape."""
        with torch.no_grad():
            folded = self._build(values).to(self._backbone.device).fold()
        # What folds to equal shapes costs the same: a kernel's size, for one, is gone by then.
        key = f"{self._method} {sorted(tuple(tensor.shape) for tensor in folded.tensors())}"
        if key not in self._latencies:
            measured = relative_latency(self._backbone, folded, self._images, min)
            self._latencies[key] = round(measured, 4)
        return self._latencies[key]

    def _build(self, values: Values) -> Adapter:
        return build_adapter(
            self._method, self._hyper | split_values(values)[0], self._backbone.traits,
            self._classes, seed=0, where="the search space",
        )  # fmt: skip


def choose(trials: Sequence[Trial]) -> Trial | None:
    """The winner: among the trials that got furthest, most right answers on validation images.

    Ties go to the smaller learning rate, as in the published search, then to fewer parameters,
    then to the earlier trial, so that equal results always give the same winner.

    Returns:
        None where no trial has a whole epoch.
    """
    return min(_furthest(trials), key=_rank, default=None)


def pareto(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Trials that no other equals or beats in accuracy, parameters and latency at once.

    Of trials that are equal in all three the first counts. Best first. Latencies must have been
    measured.
    """
    whole = _furthest(trials)
    front = [t for t in whole if not any(_beats(other, t) for other in whole)]
    return tuple(sorted(front, key=_rank))


def table(trials: Sequence[Trial], chosen: Trial | None) -> str:
    """All trials as CSV, best first; the front and the winner are marked."""
    front, winner = {trial.number for trial in pareto(trials)}, chosen and chosen.number
    names = sorted({name for trial in trials for name in trial.values})
    columns = ("trial", "state", "epochs", "correct", "total", "accuracy", "parameters", "latency",
               "pareto", "chosen")  # fmt: skip
    rows: list[Sequence[object]] = [(*columns, *names)]
    for trial in sorted(trials, key=lambda t: (-len(t.points), *_rank(t))):
        last = trial.points[-1].val if trial.points else None
        score = (last.correct, last.total, f"{last.accuracy:.6f}") if last else ("", "", "")
        latency = "" if trial.latency is None else f"{trial.latency:.3f}"
        marks = (int(trial.number in front), int(trial.number == winner))
        values = (_cell(trial.values.get(name)) for name in names)
        rows.append(
            (trial.number, trial.state, len(trial.points), *score, trial.parameters, latency,
             *marks, *values)
        )  # fmt: skip
    return csv_text(rows)


def _furthest(trials: Sequence[Trial]) -> list[Trial]:
    """Of the trials without an error, those with the most epochs, at least one."""
    sound = [trial for trial in trials if trial.points and trial.error is None]
    most = max((len(trial.points) for trial in sound), default=0)
    return [trial for trial in sound if len(trial.points) == most]


def _rank(trial: Trial) -> tuple[float, float, int, int]:
    rate = trial.values.get("learning_rate")
    correct = trial.points[-1].val.correct if trial.points else -1
    return (-correct, float(rate) if rate is not None else 0.0, trial.parameters, trial.number)


def _beats(one: Trial, other: Trial) -> bool:
    mine, theirs = _figures(one), _figures(other)
    at_least = all(a <= b for a, b in zip(mine, theirs, strict=True))
    return at_least and (mine != theirs or one.number < other.number)


def _figures(trial: Trial) -> tuple[float, float, float]:
    latency = trial.latency if trial.latency is not None else 0.0
    return (-trial.points[-1].val.correct, trial.parameters, latency)


def _cell(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
