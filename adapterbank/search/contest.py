"""The searches of one or more tasks as one experiment: what Tune asks, and whom it tells.

Tune has one searcher and one scheduler; each task has its own. The two classes here hand through
to the task's, so that any number of tasks shares a cluster and none is compared with another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from adapterbank.config.search import SearchConfig, Space
from adapterbank.errors import ConfigError
from adapterbank.search.cost import CostTable
from adapterbank.search.ledger import Ledger, Point, State, Trial
from adapterbank.search.samplers import make_sampler
from adapterbank.search.space import Values, split_values


class Entry:
    """One task's search: its sampler, its ceilings, its ledger.

    Args:
        config: how to search.
        space: among what.
        ledger: of the trials so far.
        method: of the task.
        hyper: what the task pins.
        classes: how many.
        epochs: of a whole trial.
        costs: what configurations of the task cost, with what its ledger has of them.

    Raises:
        ConfigError: nothing in the space is under the ceilings.
    """

    def __init__(  # noqa: PLR0913  # plain parts, each from another place
        self,
        config: SearchConfig,
        space: Space,
        ledger: Ledger,
        *,
        method: str,
        hyper: Mapping[str, Any],
        classes: int,
        epochs: int,
        costs: CostTable,
    ) -> None:
        self.config = config
        self.ledger = ledger
        self.epochs = epochs
        self._method = method
        self._hyper = dict(hyper)
        self._classes = classes
        self._costs = costs
        self._sampler = make_sampler(config, space)
        # What failed did so for no fault of its own, unlike what diverged: once more.
        again = {"started", "failed"}
        self._again = [t for _, t in sorted(ledger.trials.items()) if t.state in again]
        self._running: set[int] = set()
        self._exhausted = False
        if not ledger.trials and self._sampler.propose(0, (), self.allowed) is None:
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
    def started(self) -> int:
        """Trials handed out, in this process or before."""
        return len(self.ledger.trials) - len(self._again)

    @property
    def running(self) -> bool:
        """Whether trials are handed out that have not ended: any of them may come back."""
        return bool(self._running)

    def next(self) -> Trial | None:
        """The next trial to run, kept before it is given out; None when there is none left."""
        trial = self._next()
        if trial is not None:
            self._running.add(trial.number)
        return trial

    def give_back(self, number: int) -> None:
        """Hand a trial out once more: its worker was lost before Tune let it run."""
        self._running.discard(number)
        self._again.append(self.ledger.trials[number])

    def _next(self) -> Trial | None:
        if self._again:
            again = self._again.pop(0)
            if again.done:  # its machine or storage may have been mended since it failed
                again = replace(again, state="started", points=(), error=None)
                self.ledger.put(again)
            return again
        number = len(self.ledger.trials)
        full = self.config.trials is not None and number >= self.config.trials
        if full or self._exhausted:
            return None
        values = self._sampler.propose(number, self.ledger.told(), self.allowed)
        if values is None:
            self._exhausted = True
            return None
        trial = Trial(number=number, values=values, parameters=self.count(values) or 0)
        self.ledger.put(trial)
        return trial

    def count(self, values: Values) -> int | None:
        """Trained numbers of a configuration without the head; None if it does not fit."""
        return self._costs.count(self._method, self._served(values), self._classes)

    def latency(self, values: Values) -> float:
        """Forward time of a configuration over the bare backbone's."""
        measured = self._costs.latency(self._method, self._served(values), self._classes)
        if self._costs.as_json() != self.ledger.latencies:
            self.ledger.note(latencies=self._costs.as_json())
        return measured

    def allowed(self, values: Values) -> bool:
        """Whether a configuration fits the backbone and is under both ceilings."""
        count, most, slowest = (
            self.count(values), self.config.max_parameters, self.config.max_latency
        )  # fmt: skip
        if count is None or (most is not None and count > most):
            return False
        return slowest is None or self.latency(values) <= slowest

    def end(self, number: int, points: tuple[Point, ...], error: str | None) -> Trial | None:
        """Note what became of a trial; None of one cut before its first epoch, still to be done."""
        self._running.discard(number)
        if not points and error is None:
            return None
        state: State
        if error is not None:
            state = "diverged" if error.startswith("training diverged") else "failed"
        else:
            state = "finished" if len(points) >= self.epochs else "stopped"
        trial = replace(self.ledger.trials[number], state=state, points=points, error=error)
        self.ledger.put(trial)
        return trial

    def _served(self, values: Values) -> Values:
        return {**self._hyper, **split_values(values)[0]}


class FairSearcher(Searcher):
    """Gives each task its turn: the next trial is of the task that has started fewest.

    Tune's own state of it is neither saved nor needed; the ledgers are the state.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        super().__init__(metric="accuracy", mode="max")
        self._entries = entries

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's configuration, None for not now, or that there is none."""
        for entry in sorted(self._entries.values(), key=lambda entry: (entry.started, entry.task)):
            trial = entry.next()
            if trial is not None:
                return {"task": entry.task, "number": trial.number, "values": dict(trial.values)}
        # Not before the last one has ended: Tune never asks again, and one may be given back.
        return None if any(one.running for one in self._entries.values()) else Searcher.FINISHED

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,
    ) -> None:
        """Nothing: ledgers are written where results arrive."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: see the class."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see the class."""


class PerTask(FIFOScheduler):
    """A scheduler for each task, behind the one that Tune knows.

    Trials of an earlier process are told to their task's scheduler first, so that a search that
    goes on judges newcomers as one that never stopped.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner = {task: _scheduler(entry) for task, entry in entries.items()}
        for task, entry in entries.items():
            for trial in entry.ledger.trials.values():
                if trial.done and trial.state != "failed":
                    _retell(self._inner[task], trial)

    def set_search_properties(
        self,
        metric: str | None,
        mode: str | None,
        **spec: Any,
    ) -> bool:
        """Take them: every inner scheduler has its own."""
        del metric, mode, spec
        return True

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Hand through."""
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Hand through."""
        decision: str = self._of(trial).on_trial_result(tune_controller, trial, result)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Hand through."""
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Hand through."""
        self._of(trial).on_trial_remove(tune_controller, trial)

    def _of(self, trial: Any) -> TrialScheduler:
        return self._inner[trial.config["task"]]


def _scheduler(entry: Entry) -> TrialScheduler:
    if entry.config.scheduler == "none":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="epoch",
        metric="accuracy",
        mode="max",
        max_t=entry.epochs,
        grace_period=min(entry.config.grace, entry.epochs),
        reduction_factor=entry.config.reduction,
        # One that survived a rung keeps its rights when it is heard again after a failure.
        stop_last_trials=False,
    )


class _Past:
    """What a scheduler needs to know of a trial that ended in another process."""

    def __init__(self, trial: Trial) -> None:
        self.trial_id = f"earlier-{trial.number}"


def _retell(scheduler: TrialScheduler, trial: Trial) -> None:
    past: Any = _Past(trial)
    nobody: Any = None  # a scheduler's own trials have a controller
    results = [{"epoch": p.epoch, "accuracy": p.val.accuracy} for p in trial.points]
    if trial.state == "diverged":  # as its worker reported the epoch that it did not finish
        results.append({"epoch": len(results) + 1, "accuracy": 0.0})
    scheduler.on_trial_add(nobody, past)
    for result in results:
        scheduler.on_trial_result(nobody, past, result)
    if results:
        scheduler.on_trial_complete(nobody, past, results[-1])
