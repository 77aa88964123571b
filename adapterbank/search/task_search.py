"""One task's search as it goes: what to try next, what came of it, how it stands. No Ray here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from adapterbank.config.search import SearchConfig, Space
from adapterbank.errors import ConfigError
from adapterbank.search.ledger import Ledger, Point, State, Trial
from adapterbank.search.outcome import Costs, choose
from adapterbank.search.samplers import make_sampler
from adapterbank.search.space import Values


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one task's search stands."""

    task: str
    trials: int | None  # that there will be at most; None: as many as the grid has
    ended: int
    running: int
    epochs: int  # over all trials
    best: Trial | None
    score: float | None  # of the best so far, which need not have ended
    left_s: float | None  # seconds, guessed from the pace so far


class View(Protocol):
    """Whoever wants to see a search while it runs."""

    def update(self, standing: Standing) -> None:
        """Called after every epoch of every trial."""

    def ended(self, task: str, trial: Trial) -> None:
        """Called when a trial has ended."""


class TaskSearch:
    """One task's search: its sampler, its ceilings and its ledger.

    Args:
        config: how to search.
        space: among what.
        ledger: of the trials so far.
        epochs: of a whole trial.
        costs: of the task's configurations.

    Raises:
        ConfigError: nothing in the space is under the ceilings.
    """

    def __init__(
        self, config: SearchConfig, space: Space, ledger: Ledger, *, epochs: int, costs: Costs
    ) -> None:
        self.config = config
        self.ledger = ledger
        self.epochs = epochs
        self._costs = costs
        self._sampler = make_sampler(config, space)
        self._exhausted = False
        # A trial that failed did so for no fault of its own, unlike one that diverged: once more.
        self._waiting = [t for t in ledger.trials.values() if t.state in {"started", "failed"}]
        self._points: dict[int, dict[int, Point]] = {}  # by epoch, of each trial handed out
        self._begun: float | None = None
        self._spent_s = ledger.header.seconds
        self._ended_here = 0
        if not ledger.trials and self._sampler((), self._allowed) is None:
            raise ConfigError(
                f"the search of {ledger.task}",
                ["no configuration of the space fits the backbone and is under the ceilings"],
                fix="raise max_parameters or max_latency, or add smaller values to the space",
            )

    @property
    def task(self) -> str:
        """The task's name."""
        return self.ledger.task

    @property
    def handed_out(self) -> tuple[int, ...]:
        """Numbers of the trials that have not ended since they were handed out."""
        return tuple(sorted(self._points))

    @property
    def seconds(self) -> float:
        """Wall time since the first trial was handed out, with that of earlier processes."""
        return self._spent_s + (0.0 if self._begun is None else time.monotonic() - self._begun)

    def next(self) -> Trial | None:
        """Hand out the next trial, kept before it is; None where there is none now.

        Another may come as long as any is out, for that one may be given back.
        """
        self._begun = time.monotonic() if self._begun is None else self._begun
        trial = self._waiting.pop(0) if self._waiting else self._propose()
        if trial is None:
            return None
        if trial.state == "failed":  # its machine or storage may have been mended
            trial = replace(trial, state="started", points=(), error=None)
        if trial != self.ledger.trials.get(trial.number):
            self.ledger.put(trial)
        self._points[trial.number] = {}
        return trial

    def report(self, number: int, point: Point) -> None:
        """Note an epoch of a trial, perhaps for the second time."""
        self._points[number][point.epoch] = point

    def give_back(self, number: int) -> None:
        """Take a trial back that is to be handed out once more: its worker was lost."""
        del self._points[number]
        self._waiting.append(self.ledger.trials[number])

    def end(self, number: int, error: str | None = None) -> Trial | None:
        """Keep what became of a trial.

        Args:
            number: of the trial.
            error: that ended it, None of one that its scheduler or the clock ended.

        Returns:
            The trial; None of one cut before its first epoch, which is still to be done.
        """
        points = tuple(point for _, point in sorted(self._points.pop(number).items()))
        if not points and error is None:
            return None
        state: State
        if error is not None:
            state = "diverged" if error.startswith("training diverged") else "failed"
        else:
            state = "finished" if len(points) >= self.epochs else "stopped"
        trial = replace(self.ledger.trials[number], state=state, points=points, error=error)
        self.ledger.put(trial)
        self.ledger.note(seconds=self.seconds)
        self._ended_here += 1
        return trial

    def standing(self, running: int) -> Standing:
        """Tell how the search stands.

        Args:
            running: how many trials have a worker.
        """
        ended, total = self.ledger.ended, self.config.trials
        best = choose(ended)
        scores = [max(points.items())[1].val.accuracy for points in self._points.values() if points]
        left_s = None
        if total is not None and self._ended_here:
            pace_s = (self.seconds - self._spent_s) / self._ended_here
            left_s = (total - len(ended)) * pace_s
        return Standing(
            task=self.task,
            trials=total,
            ended=len(ended),
            running=running,
            epochs=sum(len(t.points) for t in ended) + sum(map(len, self._points.values())),
            best=best,
            score=max([*scores, *([best.score] if best and best.score else [])], default=None),
            left_s=left_s,
        )

    def measure_latencies(self) -> tuple[Trial, ...]:
        """Measure the trials that could be served, where that was not done; return all trials."""
        for trial in list(self.ledger.trials.values()):
            if trial.points and trial.latency is None and trial.error is None:
                self.ledger.put(replace(trial, latency=self._latency(trial.values)))
        return tuple(self.ledger.trials.values())

    def _propose(self) -> Trial | None:
        trials: Sequence[Trial] = tuple(self.ledger.trials.values())
        full = self.config.trials is not None and len(trials) >= self.config.trials
        if full or self._exhausted:
            return None
        values = self._sampler(trials, self._allowed)
        if values is None:
            self._exhausted = True
            return None
        return Trial(number=len(trials), values=values, parameters=self._costs.count(values) or 0)

    def _allowed(self, values: Values) -> bool:
        """Whether a configuration fits the backbone and is under both ceilings."""
        count, most = self._costs.count(values), self.config.max_parameters
        if count is None or (most is not None and count > most):
            return False
        slowest = self.config.max_latency
        return slowest is None or self._latency(values) <= slowest

    def _latency(self, values: Values) -> float:
        """Measure a configuration and keep the figure for later processes of the search."""
        latency = self._costs.latency(values)
        if self._costs.latencies != self.ledger.header.latencies:
            self.ledger.note(latencies=self._costs.latencies)
        return latency
