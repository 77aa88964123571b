"""Several searches as one: fair turns, ceilings, and judges that were told of the past."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.search import Searcher

from adapterbank.config.search import SearchConfig
from adapterbank.errors import ConfigError
from adapterbank.search.contest import Entry, FairSearcher, PerTask
from adapterbank.search.cost import CostTable
from adapterbank.search.ledger import Trial
from adapterbank.search.watch import View, Watch
from tests.search_trials import LISTS, Costs, ended, ledger, point

EPOCHS = 9


def entry(folder: Path, task: str = "colours", **config: Any) -> Entry:  # noqa: ANN401  # settings
    book = ledger(folder, task)
    book.note()
    return Entry(
        SearchConfig.model_validate({"trials": 6, **config}),
        LISTS,
        book,
        method="vapt",
        hyper={},
        classes=3,
        epochs=EPOCHS,
        costs=cast("CostTable", Costs()),
    )


def suggestions(entries: Mapping[str, Entry]) -> list[dict[str, Any]]:
    """All trials that are handed out before any of them has ended."""
    searcher, found = FairSearcher(entries), list[dict[str, Any]]()
    while isinstance(suggested := searcher.suggest(f"id-{len(found)}"), dict):
        found.append(suggested)
    for one in found:
        assert searcher.suggest("more") is None
        entries[one["task"]].end(one["number"], (point(1, 10),), None)
    assert searcher.suggest("more") == Searcher.FINISHED
    return found


@settings(max_examples=25)
@given(
    budgets=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    before=st.lists(st.integers(0, 4), min_size=4, max_size=4),
)
def test_turns_are_fair_and_every_budget_is_spent_exactly(
    budgets: list[int], before: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With any number of trials from an earlier process, done or not."""
    folder = tmp_path_factory.mktemp("fair")
    tasks = [f"task{index}" for index in range(len(budgets))]
    for task, budget, started in zip(tasks, budgets, before, strict=False):
        early = entry(folder, task, trials=budget)
        for index in range(started):
            trial = early.next()
            if trial is not None and index % 2:
                early.end(trial.number, (point(1, 10),), None)
    entries = {
        task: entry(folder, task, trials=budget)
        for task, budget in zip(tasks, budgets, strict=True)
    }
    budget_of = dict(zip(tasks, budgets, strict=True))
    counts = {task: entries[task].started for task in tasks}
    open_ones = sum(len(one.ledger.open_trials) for one in entries.values())
    done = sum(1 for one in entries.values() for t in one.ledger.trials.values() if t.done)
    found = suggestions(entries)
    for one in found:
        able = [task for task in tasks if counts[task] < budget_of[task]]
        assert counts[one["task"]] == min(counts[task] for task in able)
        counts[one["task"]] += 1
    assert counts == budget_of
    assert len(found) == sum(budgets) - done
    assert len(found) >= open_ones
    for task in tasks:
        assert sorted(entries[task].ledger.trials) == list(range(budget_of[task]))


@settings(max_examples=20)
@given(tasks=st.integers(2, 4), budget=st.integers(1, 6))
def test_started_counts_never_differ_by_more_than_one(
    tasks: int, budget: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("even")
    entries = {f"t{n}": entry(folder, f"t{n}", trials=budget) for n in range(tasks)}
    searcher = FairSearcher(entries)
    for _ in range(tasks * budget):
        assert isinstance(searcher.suggest("id"), dict)
        started = [one.started for one in entries.values()]
        assert max(started) - min(started) <= 1
    assert searcher.suggest("id") is None


def test_a_trial_that_is_given_back_goes_next_and_the_search_waits_for_it(tmp_path: Path) -> None:
    one = entry(tmp_path, trials=2)
    searcher = FairSearcher({"colours": one})
    first, second = searcher.suggest("a"), searcher.suggest("b")
    one.end(0, (point(1, 10),), None)
    assert searcher.suggest("c") is None
    one.give_back(1)
    assert searcher.suggest("d") == second != first
    assert one.end(1, (), None) is None  # cut before its first epoch
    assert searcher.suggest("e") == Searcher.FINISHED
    assert [trial.number for trial in one.ledger.open_trials] == [1]


def test_a_trial_that_tune_gives_up_without_trying_again_is_tried_again_so_often(
    tmp_path: Path,
) -> None:
    one = entry(tmp_path, trials=1)
    ends = list[Trial]()
    view = cast("View", SimpleNamespace(update=lambda _: None, ended=lambda _, t: ends.append(t)))
    watch = Watch({"colours": one}, view, lambda *_: None, retries=2)
    lost = SimpleNamespace(config={"task": "colours", "number": 0}, should_recover=lambda: True)
    for _ in range(2):
        assert one.next() is not None
        watch.on_trial_error(0, [], lost)
        assert not ends
    assert one.next() is not None
    watch.on_trial_error(0, [], lost)
    assert [trial.state for trial in ends] == ["failed"]
    assert one.next() is None

    other = entry(tmp_path / "other", trials=1)
    watch = Watch({"colours": other}, view, lambda *_: None, retries=2)
    assert other.next() is not None
    lost.should_recover = lambda: False  # it did try
    watch.on_trial_error(0, [], lost)
    assert [trial.state for trial in ends] == ["failed", "failed"]


def test_a_trial_is_kept_before_it_is_given_out_and_goes_first_after_a_restart(
    tmp_path: Path,
) -> None:
    first = entry(tmp_path)
    given_out = [first.next(), first.next(), first.next()]
    assert [t.number for t in given_out if t] == [0, 1, 2]
    assert [*ledger(tmp_path).trials.values()] == given_out
    first.end(1, (point(1, 50),), None)

    second = entry(tmp_path)
    assert second.started == 1
    assert [second.next(), second.next()] == [given_out[0], given_out[2]]
    fourth = second.next()
    assert fourth is not None
    assert fourth.number == 3


def test_a_restarted_search_proposes_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    def run(one: Entry, count: int) -> list[Trial]:
        found = []
        for _ in range(count):
            trial = one.next()
            assert trial is not None
            found.append(trial)
            one.end(trial.number, (point(1, 10 * trial.number % 7),), None)
        return found

    for sampler in ("random", "grid", "optuna"):
        whole = run(entry(tmp_path / sampler / "whole", sampler=sampler), 6)
        halves = [
            *run(entry(tmp_path / sampler / "half", sampler=sampler), 2),
            *run(entry(tmp_path / sampler / "half", sampler=sampler), 4),
        ]
        assert halves == whole


def test_no_trial_over_a_ceiling_is_ever_started(tmp_path: Path) -> None:
    found = suggestions(
        {"colours": entry(tmp_path, sampler="grid", trials=None, max_parameters=40,
                          max_latency=1.25)}
    )  # fmt: skip
    assert [(one["values"]["prompts"], one["values"]["rank"]) for one in found] == [
        (prompts, rank) for prompts in (2, 4) for rank in (1, 2) for _ in range(2)
    ]
    assert [t.parameters for t in ledger(tmp_path).trials.values()] == [20] * 4 + [40] * 4


def test_what_does_not_fit_the_backbone_is_never_started(tmp_path: Path) -> None:
    found = suggestions({"colours": entry(tmp_path, sampler="grid", trials=None)})
    assert {one["values"]["prompts"] for one in found} == {2, 4, 8}


@pytest.mark.parametrize("ceiling", [{"max_parameters": 19}, {"max_latency": 1.05}])
@pytest.mark.parametrize("sampler", ["random", "grid", "optuna"])
def test_nothing_under_the_ceilings_is_an_error_before_anything_starts(
    tmp_path: Path, ceiling: dict[str, Any], sampler: str
) -> None:
    with pytest.raises(ConfigError, match="under the ceilings") as caught:
        entry(tmp_path, sampler=sampler, **ceiling)
    assert caught.value.fix is not None
    assert "max_parameters" in caught.value.fix
    assert ledger(tmp_path).trials == {}


def test_a_latency_is_measured_once_and_kept_for_the_next_process(tmp_path: Path) -> None:
    first = entry(tmp_path, max_latency=1.25)
    assert first.next() is not None
    assert ledger(tmp_path).latencies == first.ledger.latencies != {}


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
    one = entry(tmp_path)
    one.next()
    points = tuple(point(epoch + 1, 10) for epoch in range(epochs))
    done = one.end(0, points, error)
    assert done is not None
    assert done.state == state
    again = ledger(tmp_path)
    assert again.trials[0].points == points
    assert again.open_trials == ()


def live(task: str, number: int) -> Any:  # noqa: ANN401  # stands for a trial of Tune's
    return SimpleNamespace(trial_id=f"live-{number}", config={"task": task, "number": number})


def judge(scheduler: PerTask, task: str, number: int, scores: list[int]) -> list[str]:
    """What a scheduler decides after each epoch, until it stops the trial."""
    trial, found = live(task, number), list[str]()
    scheduler.on_trial_add(None, trial)
    result: dict[str, Any] = {}
    for epoch, correct in enumerate(scores, start=1):
        result = {"epoch": epoch, "accuracy": correct / 100}
        found.append(scheduler.on_trial_result(None, trial, result))
        if found[-1] == "STOP":
            break
    scheduler.on_trial_complete(None, trial, result)
    return found


@settings(max_examples=40)
@given(
    past=st.lists(st.lists(st.integers(0, 100), min_size=9, max_size=9), max_size=6),
    newcomers=st.lists(
        st.lists(st.integers(0, 100), min_size=9, max_size=9), min_size=1, max_size=4
    ),
)
def test_a_judge_told_of_the_past_decides_as_one_that_lived_through_it(
    past: list[list[int]], newcomers: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("judge")
    lived = PerTask({"colours": entry(folder / "empty")})
    kept = ledger(folder / "told")
    kept.note()
    for number, scores in enumerate(past):
        told = judge(lived, "colours", number, scores)
        state = "stopped" if told[-1] == "STOP" else "finished"
        kept.put(ended(number, scores[: len(told)], state=state))  # type: ignore[arg-type]
    again = PerTask({"colours": entry(folder / "told")})
    for number, scores in enumerate(newcomers, start=len(past)):
        assert judge(again, "colours", number, scores) == judge(lived, "colours", number, scores)


def test_a_bad_newcomer_is_stopped_because_of_trials_of_an_earlier_process(tmp_path: Path) -> None:
    kept = ledger(tmp_path)
    kept.note()
    for number in range(3):
        kept.put(ended(number, [90] * EPOCHS))
    assert judge(PerTask({"colours": entry(tmp_path)}), "colours", 3, [10]) == ["STOP"]
    alone = PerTask({"colours": entry(tmp_path / "alone")})
    assert judge(alone, "colours", 3, [10]) == ["CONTINUE"]


def test_tasks_are_not_compared_with_one_another(tmp_path: Path) -> None:
    scheduler = PerTask({task: entry(tmp_path, task) for task in ("easy", "hard")})
    for number in range(3):
        judge(scheduler, "easy", number, [90] * EPOCHS)
    assert judge(scheduler, "hard", 3, [10] * EPOCHS) == ["CONTINUE"] * EPOCHS
    assert judge(scheduler, "easy", 4, [10] * EPOCHS) == ["STOP"]


def test_without_a_scheduler_nobody_is_stopped(tmp_path: Path) -> None:
    scheduler = PerTask({"colours": entry(tmp_path, scheduler="none")})
    for number, score in enumerate((90, 90, 90, 0)):
        assert judge(scheduler, "colours", number, [score] * EPOCHS) == ["CONTINUE"] * EPOCHS


def test_a_trial_that_diverged_is_told_with_the_score_it_was_judged_by(tmp_path: Path) -> None:
    lived = PerTask({"colours": entry(tmp_path / "lived")})
    kept = ledger(tmp_path / "told")
    kept.note()
    judge(lived, "colours", 0, [90] * EPOCHS)
    kept.put(ended(0, [90] * EPOCHS))
    for number in (1, 2):
        judge(lived, "colours", number, [0])  # what a worker reports of an epoch that diverged
        kept.put(ended(number, [], state="diverged", error="training diverged"))
    again = PerTask({"colours": entry(tmp_path / "told")})
    assert judge(lived, "colours", 3, [50]) == judge(again, "colours", 3, [50]) == ["CONTINUE"]
