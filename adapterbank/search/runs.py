"""The MLflow side of a search: one parent run, one nested run for each trial, from the driver.

Trials that a killed driver had logged are found again by their tags, so none is logged twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from adapterbank.bank.plan import Winner
from adapterbank.errors import AdapterBankError
from adapterbank.integrations.figures import pareto, png
from adapterbank.integrations.mlflow.runs import RunLogger, find_runs, open_run
from adapterbank.search.ledger import Trial

_IDENTITY = "adapterbank.search"
_KIND = "adapterbank.kind"
_NUMBER = "adapterbank.trial"
_PARENT = "mlflow.parentRunId"
_STATE = "adapterbank.state"  # set last: a run without it was cut off while it was sent


@contextmanager
def open_search_runs(
    root: Path, task: str, identity: str, params: Mapping[str, str | int | float]
) -> Iterator[SearchRuns]:
    """Open the run of a search, which ends as the block does.

    Args:
        root: the bank.
        task: the MLflow experiment.
        identity: of the search; a search that goes on continues its run.
        params: of the run.
    """
    tags = {_IDENTITY: identity, _KIND: "search"}
    earlier = next(iter(find_runs(root, task, tags)), None)
    with open_run(
        root, experiment=task, name=f"{task} search", params=params, tags=tags, run_id=earlier
    ) as run:
        yield SearchRuns(root, task, run)


class SearchRuns:
    """Send a search and its trials to MLflow.

    Args:
        root: the bank.
        task: the MLflow experiment.
        run: of the search.
    """

    def __init__(self, root: Path, task: str, run: RunLogger) -> None:
        self._root = root
        self._task = task
        self._run = run
        nested = find_runs(root, task, {_PARENT: run.run_id})
        self._run_ids = {tags.get(_NUMBER, ""): run_id for run_id, tags in nested.items()}
        self._sent = {tags.get(_NUMBER, ""): tags.get(_STATE) for tags in nested.values()}

    def trial(self, trial: Trial) -> None:
        """Log a trial that has ended, now or, if MLflow does not answer, at the end.

        A store that is down must not cost a search its trials.
        """
        with suppress(AdapterBankError):
            self._log(trial)

    def conclude(
        self, winner: Winner, trials: Sequence[Trial], front: Sequence[Trial], table: str
    ) -> None:
        """Log the winner, the table of all trials and the picture of the front.

        Raises:
            AdapterBankError: MLflow does not answer; doing it again finishes it.
        """
        for trial in trials:
            if self._sent.get(str(trial.number)) != trial.state:
                self._log(trial)
        if not self._run.steps("val/best"):
            self._run.epoch(0, {"val/best": winner.val.accuracy, "trials": len(trials)})
        self._run.json("best.json", asdict(winner))
        self._run.text("trials.csv", table)
        points = {
            trial.number: (trial.parameters, trial.points[-1].val.accuracy, trial in front)
            for trial in trials
            if trial.points and trial.error is None
        }
        self._run.figure(
            "pareto.png",
            png(
                pareto(
                    list(points.values()),
                    chosen=points[winner.trial][:2],
                    title=f"{self._task}: {len(trials)} trials",
                )
            ),
        )

    def _log(self, trial: Trial) -> None:
        """Log a trial; what is there of it already is not sent again."""
        number = str(trial.number)
        run = open_run(
            self._root,
            experiment=self._task,
            name=f"{self._task} trial {number}",
            params={name: str(value) for name, value in trial.values.items()},
            tags={_PARENT: self._run.run_id, _NUMBER: number, _KIND: "trial"},
            run_id=self._run_ids.get(number),
        )
        self._run_ids[number] = run.run_id
        with run:
            sent = run.steps("val/accuracy")
            for point in trial.points:
                figures = {
                    "train/loss": point.loss,
                    "val/loss": point.val_loss,
                    "val/accuracy": point.val.accuracy,
                }
                if point.epoch not in sent:
                    run.epoch(point.epoch, figures)
            if not run.steps("parameters"):
                run.epoch(0, {"parameters": trial.parameters})
        run.tags({_STATE: trial.state})
        self._sent[number] = trial.state
