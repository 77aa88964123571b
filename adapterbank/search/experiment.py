"""One task's search as one Ray Tune experiment: what Tune asks, and what it tells."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from ray import tune as ray_tune
from ray.exceptions import RayError
from ray.tune.error import TuneError
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from adapterbank.errors import AdapterBankError
from adapterbank.records import Score
from adapterbank.search.cluster import hushed, plain_reason
from adapterbank.search.interrupts import Interrupts
from adapterbank.search.ledger import Point, Trial
from adapterbank.search.task_search import TaskSearch, View
from adapterbank.search.trial import Shared, run_trial

RETRIES = 3  # of a trial whose worker or node was lost


def run_experiment(
    search: TaskSearch,
    shared: Shared,
    resources: Mapping[str, float],
    view: View,
    log: Callable[[Trial], None],
) -> None:
    """Run the trials that a search has left, until it has none or its time is over.

    Args:
        search: whose trials; its ledger has all that came of them.
        shared: what the trials have in common.
        resources: of one trial.
        view: shown how it goes.
        log: sends a trial that has ended to MLflow; a failure there must not stop a search, so
            it takes care of its own.

    Raises:
        AdapterBankError: the ledger cannot be written, or Ray gave up.
    """
    config = search.config
    left_s = None if config.minutes is None else max(1.0, config.minutes * 60.0 - search.seconds)
    trainable: Any = ray_tune.with_resources(
        ray_tune.with_parameters(run_trial, shared={"task": shared}), dict(resources)
    )
    # Interrupts are ours: an exception that ends the block, not a request to Tune to wind up.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # told in a line by the view
    watch = Watch(search, view, log)
    # What Tune writes on the driver is needed by nobody afterwards.
    with tempfile.TemporaryDirectory(prefix="adapterbank-tune-") as folder, hushed():
        tuner = ray_tune.Tuner(
            trainable,
            tune_config=ray_tune.TuneConfig(
                search_alg=Proposals(search),
                scheduler=make_scheduler(search),
                num_samples=-1,
                max_concurrent_trials=config.max_concurrent,
                time_budget_s=left_s,
                reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(
                name=search.task,
                storage_path=folder,
                callbacks=[watch],
                failure_config=ray_tune.FailureConfig(max_failures=RETRIES),
                verbose=0,
            ),
        )
        try:
            with watch.interrupts.hold():
                tuner.fit()
        except (TuneError, RayError) as error:
            raise _own(error) from error
    watch.time_is_up()


class Proposals(Searcher):
    """Hand the trials of a search to Tune, whose own state of it is neither saved nor needed."""

    def __init__(self, search: TaskSearch) -> None:
        super().__init__(metric="accuracy", mode="max")
        self._search = search

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's configuration, None for not now, or that there is none."""
        trial = self._search.next()
        if trial is not None:
            return {"number": trial.number, "values": dict(trial.values)}
        # Not before the last one has ended: Tune never asks again, and one may be given back.
        return None if self._search.handed_out else Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the watch ends trials."""


def make_scheduler(search: TaskSearch) -> TrialScheduler:
    """Build the scheduler of a search, as it would be had it seen the trials that have ended.

    So a search that goes on judges newcomers as one that never stopped.
    """
    if search.config.scheduler == "none":
        return FIFOScheduler()
    scheduler = ASHAScheduler(
        time_attr="epoch",
        metric="accuracy",
        mode="max",
        max_t=search.epochs,
        grace_period=min(search.config.grace, search.epochs),
        reduction_factor=search.config.reduction,
        # One that survived a rung keeps its rights when it is heard again after a failure.
        stop_last_trials=False,
    )
    for trial in search.ledger.ended:
        if trial.state != "failed":
            _replay(scheduler, trial)
    return scheduler


def _replay(scheduler: TrialScheduler, trial: Trial) -> None:
    """Tell a scheduler of a trial of another process, as Tune tells it of one of its own."""
    past: Any = SimpleNamespace(trial_id=f"earlier-{trial.number}")
    nobody: Any = None  # the controller, of which a scheduler that never pauses asks nothing
    results = [{"epoch": p.epoch, "accuracy": p.val.accuracy} for p in trial.points]
    if trial.state == "diverged":  # as its worker reported the epoch that it did not finish
        results.append({"epoch": len(results) + 1, "accuracy": 0.0})
    scheduler.on_trial_add(nobody, past)
    for result in results:
        scheduler.on_trial_result(nobody, past, result)
    if results:
        scheduler.on_trial_complete(nobody, past, results[-1])


class Watch(ray_tune.Callback):
    """Bring what Tune says of trials into the ledger, to MLflow and onto the screen.

    Args:
        search: whose trials.
        view: see :func:`run_experiment`.
        log: see there.
    """

    def __init__(self, search: TaskSearch, view: View, log: Callable[[Trial], None]) -> None:
        self.interrupts = Interrupts()  # answered between two of Tune's steps
        self._search = search
        self._view = view
        self._log = log
        self._working: set[int] = set()  # trials that have a worker
        self._given_back: Counter[int] = Counter()
        self._diverged: dict[int, str] = {}
        self._failure: AdapterBankError | None = None

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has a worker."""
        self._working.add(_number(trial))
        self._show()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch is done, perhaps for the second time."""
        if "diverged" in result:
            self._diverged[_number(trial)] = str(result["diverged"])
        elif "correct" in result:
            point = Point(
                epoch=int(result["epoch"]),
                val=Score(correct=int(result["correct"]), total=int(result["total"])),
                val_loss=float(result["val_loss"]),
                loss=float(result["loss"]),
                seconds=float(result["seconds"]),
            )
            self._search.report(_number(trial), point)
            self._show()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended, by itself or because its scheduler said so."""
        self._end(_number(trial), self._diverged.get(_number(trial)))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has failed once too often, or in a way that Tune does not try again.

        It counts no failure between one trial's end and the next one's start on the same worker:
        it gives that trial up at once, with all its retries unused.
        """
        number = _number(trial)
        if trial.should_recover() and self._given_back[number] < RETRIES:
            self._given_back[number] += 1
            self._working.discard(number)
            self._search.give_back(number)
            return
        error = trial.get_error() if getattr(trial, "pickled_error_file", None) else None
        self._end(number, plain_reason(str(error or "")))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End the search if it was interrupted, or its state cannot be kept any more.

        Raises:
            AdapterBankError: what the storage said. Raised here and not where it happened, since
                Tune takes an error there for one of the trial's, which it runs again.
        """
        self.interrupts.check()
        if self._failure is not None:
            raise self._failure

    def time_is_up(self) -> None:
        """Keep what trials gave that the clock cut off: Tune ends those without a word.

        Raises:
            AdapterBankError: the storage cannot be written.
        """
        for number in self._search.handed_out:
            self._end(number, None)
        if self._failure is not None:
            raise self._failure

    def _end(self, number: int, error: str | None) -> None:
        self._working.discard(number)
        try:
            trial = self._search.end(number, error)
        except AdapterBankError as failure:
            self._failure = failure
            return
        if trial is not None:
            self._log(trial)
            self._view.ended(self._search.task, trial)
            self._show()

    def _show(self) -> None:
        self._view.update(self._search.standing(running=len(self._working)))


def _number(trial: Any) -> int:
    """Which configuration Tune's trial is of."""
    return int(trial.config["number"])


def _own(error: BaseException) -> AdapterBankError:
    """Find our own error among those that led to Ray's, or make one of it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AdapterBankError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return AdapterBankError(f"Ray ended the search: {plain_reason(str(error))}", fix="run it again")
