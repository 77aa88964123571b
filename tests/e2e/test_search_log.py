"""What MLflow is sent of a search: whole, once, whoever is killed in between."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from adapterbank.bank.plan import Budget, Winner
from adapterbank.integrations.mlflow.runs import RunLogger
from adapterbank.search.ledger import Trial
from adapterbank.search.runs import SearchRuns, open_search_runs
from tests import search_runs as sent
from tests.search_trials import IDENTITY, ended

_TRIALS = (ended(0, [1, 2]), ended(1, [3, 4]), ended(2, [5], state="stopped"))


def _open(root: Path) -> AbstractContextManager[SearchRuns]:
    return open_search_runs(root, sent.TASK, IDENTITY, {"seed": 0})


def _conclude(log: SearchRuns, trials: Sequence[Trial] = _TRIALS) -> None:
    winner = Winner(
        task=sent.TASK,
        identity=IDENTITY,
        trial=1,
        values=dict(trials[1].values),
        val=trials[1].points[-1].val,
        budget=Budget(sampler="random", scheduler="none", trials=3, epochs=5),
    )
    log.conclude(winner, trials, trials[1:2], "trial\n")


def _assert_whole(root: Path) -> None:
    (parent,), nested = sent.logged(root)
    assert parent.info.status == "FINISHED"
    assert sent.history(root, parent, "val/best") == [(0, 0.04)]
    assert sorted(nested) == ["0", "1", "2"]
    for trial in _TRIALS:
        (run,) = nested[str(trial.number)]
        assert run.info.status == "FINISHED"
        assert run.data.tags["adapterbank.state"] == trial.state
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert sent.history(root, run, "val/accuracy") == [
            (point.epoch, point.val.accuracy) for point in trial.points
        ]
        assert sent.history(root, run, "parameters") == [(0, 100)]


@pytest.mark.parametrize("moment", ["params", "epoch", "flush", "tags"])
def test_a_trial_that_was_cut_off_while_it_was_sent_is_sent_whole_by_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    with _open(tmp_path) as log:
        log.trial(_TRIALS[0])
        monkeypatch.setattr(RunLogger, moment, _die)
        with pytest.raises(KeyboardInterrupt):
            log.trial(_TRIALS[1])
        monkeypatch.undo()

    with _open(tmp_path) as log:
        _conclude(log)

    _assert_whole(tmp_path)


def test_a_search_that_is_concluded_again_sends_nothing_twice(tmp_path: Path) -> None:
    for _ in range(2):
        with _open(tmp_path) as log:
            for trial in _TRIALS:
                log.trial(trial)
            _conclude(log)

    _assert_whole(tmp_path)


def _die(*_: object) -> None:
    raise KeyboardInterrupt
