"""A task's search: its budget, its ceilings, and what is kept of every trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterbank.errors import ConfigError
from adapterbank.search.ledger import Trial
from adapterbank.search.task_search import TaskSearch
from tests.search_trials import EPOCHS, ledger, point, task_search


def hand_out_all(search: TaskSearch) -> list[Trial]:
    """All trials that are handed out before any of them has ended."""
    trials = list[Trial]()
    while (trial := search.next()) is not None:
        trials.append(trial)
    return trials


def run(search: TaskSearch, count: int) -> list[Trial]:
    """Run so many trials, one after the other."""
    trials = list[Trial]()
    for _ in range(count):
        trial = search.next()
        assert trial is not None
        trials.append(trial)
        search.report(trial.number, point(1, 10 * trial.number % 7))
        search.end(trial.number)
    return trials


@settings(max_examples=25)
@given(budget=st.integers(1, 6), before=st.integers(0, 6))
def test_a_budget_is_spent_exactly_with_any_number_of_trials_from_an_earlier_process(
    budget: int, before: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("budget")
    early = task_search(folder, trials=budget)
    for trial in hand_out_all(early)[:before:2]:
        early.report(trial.number, point(1, 10))
        early.end(trial.number)
    ended = len(early.ledger.ended)

    search = task_search(folder, trials=budget)
    trials = hand_out_all(search)
    assert len(trials) == budget - ended
    assert sorted(search.ledger.trials) == list(range(budget))
    assert {trial.number for trial in trials}.isdisjoint(t.number for t in search.ledger.ended)


def test_a_trial_that_is_given_back_goes_next(tmp_path: Path) -> None:
    search = task_search(tmp_path, trials=3)
    search.next()
    second = search.next()
    assert second is not None
    search.give_back(second.number)
    assert search.handed_out == (0,)
    assert search.next() == second
    assert search.end(second.number) is None  # cut before its first epoch
    assert search.ledger.trials[second.number].state == "started"


def test_a_trial_is_kept_before_it_is_handed_out_and_goes_first_after_a_restart(
    tmp_path: Path,
) -> None:
    first = task_search(tmp_path)
    handed_out = [first.next(), first.next(), first.next()]
    assert [trial.number for trial in handed_out if trial] == [0, 1, 2]
    assert [*ledger(tmp_path).trials.values()] == handed_out
    first.report(1, point(1, 50))
    first.end(1)

    second = task_search(tmp_path)
    assert [second.next(), second.next()] == [handed_out[0], handed_out[2]]
    fourth = second.next()
    assert fourth is not None
    assert fourth.number == 3


def test_a_trial_that_failed_is_run_once_more_by_the_next_process(tmp_path: Path) -> None:
    first = task_search(tmp_path, trials=1)
    first.next()
    first.end(0, "its worker was lost")
    assert first.next() is None

    again = task_search(tmp_path, trials=1).next()
    assert again is not None
    assert (again.number, again.state, again.error) == (0, "started", None)
    assert ledger(tmp_path).trials[0] == again


@pytest.mark.parametrize("sampler", ["random", "grid", "optuna"])
def test_a_restarted_search_proposes_what_an_uninterrupted_one_does(
    tmp_path: Path, sampler: str
) -> None:
    whole = run(task_search(tmp_path / "whole", sampler=sampler), 6)
    halves = [
        *run(task_search(tmp_path / "half", sampler=sampler), 2),
        *run(task_search(tmp_path / "half", sampler=sampler), 4),
    ]
    assert halves == whole


def test_no_trial_over_a_ceiling_is_ever_started(tmp_path: Path) -> None:
    search = task_search(tmp_path, sampler="grid", trials=None, max_parameters=40, max_latency=1.25)
    trials = hand_out_all(search)
    assert [(trial.values["prompts"], trial.values["rank"]) for trial in trials] == [
        (prompts, rank) for prompts in (2, 4) for rank in (1, 2) for _ in range(2)
    ]
    assert [t.parameters for t in ledger(tmp_path).trials.values()] == [20] * 4 + [40] * 4


def test_what_does_not_fit_the_backbone_is_never_started(tmp_path: Path) -> None:
    trials = hand_out_all(task_search(tmp_path, sampler="grid", trials=None))
    assert {trial.values["prompts"] for trial in trials} == {2, 4, 8}


@pytest.mark.parametrize("ceiling", [{"max_parameters": 19}, {"max_latency": 1.05}])
@pytest.mark.parametrize("sampler", ["random", "grid", "optuna"])
def test_nothing_under_the_ceilings_is_an_error_before_anything_starts(
    tmp_path: Path, ceiling: dict[str, Any], sampler: str
) -> None:
    with pytest.raises(ConfigError, match="under the ceilings") as caught:
        task_search(tmp_path, sampler=sampler, **ceiling)
    assert caught.value.fix is not None
    assert "max_parameters" in caught.value.fix
    assert ledger(tmp_path).trials == {}


def test_a_latency_is_measured_once_and_kept_for_the_next_process(tmp_path: Path) -> None:
    first = task_search(tmp_path, max_latency=1.25)
    assert first.next() is not None
    assert ledger(tmp_path).header.latencies == first.ledger.header.latencies != {}


def test_trials_that_could_be_served_get_their_latency_at_the_end(tmp_path: Path) -> None:
    search = task_search(tmp_path, trials=3)
    hand_out_all(search)
    search.report(0, point(1, 10))
    search.end(0)
    search.report(1, point(1, 10))
    search.end(1, "its worker was lost")
    latencies = [trial.latency is not None for trial in search.measure_latencies()]
    assert latencies == [True, False, False]
    assert [*ledger(tmp_path).trials.values()] == [*search.ledger.trials.values()]


@pytest.mark.parametrize(
    ("epochs", "error", "state"),
    [
        (EPOCHS, None, "finished"),
        (2, None, "stopped"),
        (2, "training diverged in epoch 3", "diverged"),
        (0, "its worker was lost", "failed"),
    ],
)
def test_what_became_of_a_trial_is_kept(
    tmp_path: Path, epochs: int, error: str | None, state: str
) -> None:
    search = task_search(tmp_path)
    search.next()
    points = tuple(point(epoch + 1, 10) for epoch in range(epochs))
    for reported in (*points, *points):  # a worker that takes over reports all of it again
        search.report(0, reported)
    trial = search.end(0, error)
    assert trial is not None
    assert trial.state == state
    assert ledger(tmp_path).trials[0].points == points
    assert ledger(tmp_path).ended == (trial,)


def test_time_spent_by_earlier_processes_is_added_up(tmp_path: Path) -> None:
    ledger(tmp_path).note(seconds=100.0)
    search = task_search(tmp_path)
    assert search.seconds == 100.0
    run(search, 1)
    assert 100.0 < ledger(tmp_path).header.seconds < 110.0


def test_a_standing_counts_epochs_of_trials_that_have_ended_and_of_those_that_run(
    tmp_path: Path,
) -> None:
    search = task_search(tmp_path, trials=4)
    assert (search.standing(0).best, search.standing(0).score) == (None, None)
    run(search, 2)
    search.next()
    search.report(2, point(1, 60))
    search.report(2, point(2, 40))
    standing = search.standing(running=1)
    assert (standing.trials, standing.ended, standing.running, standing.epochs) == (4, 2, 1, 4)
    assert standing.best is not None
    assert standing.score == 0.4
    assert standing.left_s is not None
