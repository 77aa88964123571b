"""What Tune asks of a search and tells it: no trial is lost, and a restart changes no judgement."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from adapterbank.errors import AdapterBankError
from adapterbank.search.experiment import RETRIES, Proposals, Watch, make_scheduler
from adapterbank.search.ledger import Trial
from adapterbank.search.task_search import TaskSearch, View
from tests.search_trials import EPOCHS, ended, ledger, point, task_search

CORRECT = st.lists(st.integers(0, 100), min_size=EPOCHS, max_size=EPOCHS)


class Seen:
    """A view, and a log, that keep what they get."""

    def __init__(self) -> None:
        self.ended_trials = list[Trial]()
        self.logged = list[Trial]()
        self.running = list[int]()

    def update(self, standing: Any) -> None:  # noqa: ANN401  # a Standing
        self.running.append(standing.running)

    def ended(self, task: str, trial: Trial) -> None:
        assert task == "colours"
        self.ended_trials.append(trial)


def watching(search: TaskSearch) -> tuple[Watch, Seen]:
    seen = Seen()
    return Watch(search, cast("View", seen), seen.logged.append), seen


def live(number: int, *, should_recover: bool = False) -> Any:  # noqa: ANN401  # stands for Tune's
    return SimpleNamespace(
        trial_id=f"live-{number}",
        config={"number": number},
        should_recover=lambda: should_recover,
    )


def report(watch: Watch, number: int, epoch: int, correct: int) -> None:
    result = {"epoch": epoch, "correct": correct, "total": 100, "val_loss": 1.0, "loss": 1.0,
              "seconds": 0.5}  # fmt: skip
    watch.on_trial_result(0, [], live(number), result)


def test_tune_is_told_that_there_is_no_more_once_the_last_trial_has_ended(tmp_path: Path) -> None:
    search = task_search(tmp_path, trials=2)
    proposals = Proposals(search)
    first, second = proposals.suggest("a"), proposals.suggest("b")
    assert (first["number"], second["number"]) == (0, 1)
    assert first["values"] == search.ledger.trials[0].values
    assert proposals.suggest("c") is None
    search.end(0, "its worker was lost")
    assert proposals.suggest("d") is None  # the other one may come back
    search.give_back(1)
    assert proposals.suggest("e") == second
    search.end(1, "its worker was lost")
    assert proposals.suggest("f") == Searcher.FINISHED


def test_a_trial_that_tune_gives_up_without_trying_again_is_tried_again_so_often(
    tmp_path: Path,
) -> None:
    search = task_search(tmp_path, trials=1)
    watch, seen = watching(search)
    for _ in range(RETRIES):
        assert search.next() is not None
        watch.on_trial_error(0, [], live(0, should_recover=True))
    assert not seen.ended_trials
    assert search.next() is not None
    watch.on_trial_error(0, [], live(0, should_recover=True))
    assert [trial.state for trial in seen.ended_trials] == ["failed"]
    assert search.next() is None


def test_a_trial_that_tune_has_tried_again_itself_has_failed(tmp_path: Path) -> None:
    search = task_search(tmp_path, trials=1)
    watch, seen = watching(search)
    search.next()
    watch.on_trial_error(0, [], live(0))
    assert [(t.state, t.error) for t in seen.ended_trials] == [("failed", "its worker was lost")]
    assert seen.logged == seen.ended_trials


def test_what_a_trial_reports_is_shown_and_kept_when_it_ends(tmp_path: Path) -> None:
    search = task_search(tmp_path, trials=1)
    watch, seen = watching(search)
    search.next()
    watch.on_trial_start(0, [], live(0))
    report(watch, 0, 1, 30)
    report(watch, 0, 1, 30)  # a second worker, from the first one's state
    report(watch, 0, 2, 40)
    watch.on_trial_complete(0, [], live(0))
    assert seen.running == [1, 1, 1, 1, 0]
    (trial,) = seen.ended_trials
    assert trial.points == (point(1, 30), point(2, 40))
    assert ledger(tmp_path).trials == {0: trial}


def test_a_trial_that_diverges_keeps_its_whole_epochs_and_says_so(tmp_path: Path) -> None:
    search = task_search(tmp_path, trials=1)
    watch, seen = watching(search)
    search.next()
    report(watch, 0, 1, 30)
    watch.on_trial_result(0, [], live(0), {"epoch": 2, "diverged": "training diverged in epoch 2"})
    watch.on_trial_complete(0, [], live(0))
    (trial,) = seen.ended_trials
    assert (trial.state, len(trial.points)) == ("diverged", 1)


def test_what_the_clock_cuts_off_counts_as_far_as_it_was_heard_of(tmp_path: Path) -> None:
    search = task_search(tmp_path, trials=2)
    watch, seen = watching(search)
    search.next(), search.next()
    report(watch, 0, 1, 30)
    watch.time_is_up()
    assert [(trial.number, trial.state) for trial in seen.ended_trials] == [(0, "stopped")]
    assert ledger(tmp_path).trials[1].state == "started"


def test_a_ledger_that_cannot_be_written_ends_the_search_between_two_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = task_search(tmp_path, trials=1)
    watch, seen = watching(search)
    search.next()

    def full(_: object) -> None:
        raise AdapterBankError("the disk is full")

    monkeypatch.setattr(search.ledger, "put", full)
    report(watch, 0, 1, 30)
    watch.on_trial_complete(0, [], live(0))  # Tune would take an error here for the trial's own
    assert not seen.ended_trials
    with pytest.raises(AdapterBankError, match="the disk is full"):
        watch.on_step_end(0, [])


# --- schedulers


def judge(scheduler: TrialScheduler, number: int, scores: list[int]) -> list[str]:
    """What a scheduler decides after each epoch, until it stops the trial."""
    nobody: Any = None
    trial, decisions = live(number), list[str]()
    scheduler.on_trial_add(nobody, trial)
    result: dict[str, Any] = {}
    for epoch, correct in enumerate(scores, start=1):
        result = {"epoch": epoch, "accuracy": correct / 100}
        decisions.append(scheduler.on_trial_result(nobody, trial, result))
        if decisions[-1] == "STOP":
            break
    scheduler.on_trial_complete(nobody, trial, result)
    return decisions


@settings(max_examples=40)
@given(past=st.lists(CORRECT, max_size=6), newcomers=st.lists(CORRECT, min_size=1, max_size=4))
def test_a_scheduler_of_a_search_that_goes_on_decides_as_one_that_lived_through_it(
    past: list[list[int]], newcomers: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("judge")
    lived = make_scheduler(task_search(folder / "empty"))
    kept = ledger(folder / "kept")
    kept.note()
    for number, scores in enumerate(past):
        decisions = judge(lived, number, scores)
        state = "stopped" if decisions[-1] == "STOP" else "finished"
        kept.put(ended(number, scores[: len(decisions)], state=state))  # type: ignore[arg-type]
    again = make_scheduler(task_search(folder / "kept"))
    for number, scores in enumerate(newcomers, start=len(past)):
        assert judge(again, number, scores) == judge(lived, number, scores)


def test_a_bad_newcomer_is_stopped_because_of_trials_of_an_earlier_process(tmp_path: Path) -> None:
    kept = ledger(tmp_path)
    kept.note()
    for number in range(3):
        kept.put(ended(number, [90] * EPOCHS))
    assert judge(make_scheduler(task_search(tmp_path)), 3, [10]) == ["STOP"]
    alone = make_scheduler(task_search(tmp_path / "alone"))
    assert judge(alone, 3, [10]) == ["CONTINUE"]


def test_without_a_scheduler_nobody_is_stopped(tmp_path: Path) -> None:
    scheduler = make_scheduler(task_search(tmp_path, scheduler="none"))
    decisions = [judge(scheduler, n, [score] * EPOCHS) for n, score in enumerate((90, 90, 90, 0))]
    assert decisions == [["CONTINUE"] * EPOCHS] * 4


def test_a_trial_that_diverged_counts_with_the_score_it_was_judged_by(tmp_path: Path) -> None:
    lived = make_scheduler(task_search(tmp_path / "lived"))
    kept = ledger(tmp_path / "kept")
    kept.note()
    judge(lived, 0, [90] * EPOCHS)
    kept.put(ended(0, [90] * EPOCHS))
    for number in (1, 2):
        judge(lived, number, [0])  # what a worker reports of an epoch that diverged
        kept.put(ended(number, [], state="diverged", error="training diverged"))
    again = make_scheduler(task_search(tmp_path / "kept"))
    assert judge(lived, 3, [50]) == judge(again, 3, [50]) == ["CONTINUE"]
