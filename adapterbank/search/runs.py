"""The MLflow side of a search: one parent run, one nested run for each trial, from the driver.

Trials that a killed driver had logged are found again by their tags, so none is logged twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from adapterbank.bank.plan import Winner
from adapterbank.errors import AdapterBankError
from adapterbank.integrations.figures import pareto, png
from adapterbank.integrations.mlflow.runs import find_runs, open_run
from adapterbank.search.ledger import Trial

_IDENTITY = "adapterbank.search"
_NUMBER = "adapterbank.trial"
_PARENT = "mlflow.parentRunId"
_STATE = "adapterbank.state"  # set last: a run without it was cut off while it was sent


class SearchRuns:
    """Send a search and its trials to MLflow; use it in a ``with`` statement.

    Args:
        root: the bank.
        task: the MLflow experiment.
        identity: of the search; a search that goes on continues its run.
        name: title of the parent run.
        params: of the parent run.
    """

    def __init__(
        self, root: Path, task: str, identity: str, *, name: str,
        params: Mapping[str, str | int | float],
    ) -> None:  # fmt: skip
        self._root = root
        self._task = task
        found = find_runs(root, task, {_IDENTITY: identity, "adapterbank.kind": "search"})
        self._run = open_run(
            root,
            experiment=task,
            name=name,
            params=params,
            tags={_IDENTITY: identity, "adapterbank.kind": "search"},
            run_id=next(iter(found), None),
        )
        children = find_runs(root, task, {_PARENT: self._run.run_id})
        self._known = {tags.get(_NUMBER, ""): run_id for run_id, tags in children.items()}
        self._sent = {tags.get(_NUMBER, ""): tags.get(_STATE) for tags in children.values()}

    def __enter__(self) -> Self:
        self._run.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run.__exit__(kind, error, trace)

    def trial(self, trial: Trial) -> None:
        """Log a trial that has ended, now or, if MLflow does not answer, at the end.

        A store that is down must not cost a search its trials.
        """
        with suppress(AdapterBankError):
            self._log(trial)

    def _log(self, trial: Trial) -> None:
        """Log a trial; what is there of it already is not sent again."""
        run = open_run(
            self._root,
            experiment=self._task,
            name=f"{self._task} trial {trial.number}",
            params={name: str(value) for name, value in trial.values.items()},
            tags={
                _PARENT: self._run.run_id,
                _NUMBER: str(trial.number),
                "adapterbank.kind": "trial",
            },
            run_id=self._known.get(str(trial.number)),
        )
        self._known[str(trial.number)] = run.run_id
        with run:
            sent = run.steps("val/accuracy")
            for point in trial.points:
                if point.epoch not in sent:
                    run.epoch(
                        point.epoch,
                        {
                            "train/loss": point.loss,
                            "val/loss": point.val_loss,
                            "val/accuracy": point.val.accuracy,
                        },
                    )
            if not run.steps("parameters"):
                run.epoch(0, {"parameters": trial.parameters})
        run.tags({_STATE: trial.state})
        self._sent[str(trial.number)] = trial.state

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
        marks = {trial.number for trial in front}
        self._run.figure(
            "pareto.png",
            png(
                pareto(
                    [
                        (trial.parameters, trial.points[-1].val.accuracy, trial.number in marks)
                        for trial in trials
                        if trial.points and trial.error is None
                    ],
                    chosen=next(
                        (t.parameters, t.points[-1].val.accuracy)
                        for t in trials
                        if t.number == winner.trial
                    ),
                    title=f"{self._task}: {len(trials)} trials",
                )
            ),
        )
