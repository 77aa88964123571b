"""All tasks of a bank searched at once: fairly, on every CPU, through every fault."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ray_nodes import Node, cluster, resume, suspend, wait_until
from tests.search_banks import (
    best_of,
    done_of,
    figures,
    kept_of,
    make_search_bank,
    run_program,
    seconds_of,
    start_program,
    take_best,
    trials_of,
)

TASKS = {"first": "vapt", "other": "vapt", "solved": "linear"}
SEARCHED = ("first", "other")
TRIALS = 3
EPOCHS = 60  # a second or two
_SEARCH = f"{{sampler: random, scheduler: none, trials: {TRIALS}, seed: 3}}"
_LEFT_OUT = "solved: nothing to search"
_NOBODY = "127.0.0.1:1"  # where no cluster answers


@pytest.fixture(scope="module")
def machine() -> Iterator[tuple[str, Node]]:
    """Return the address of a cluster of one node with two CPUs, and the node."""
    with cluster() as made, pytest.MonkeyPatch.context() as patch:
        node = made.head("--num-cpus=2", "--num-gpus=0", "--include-dashboard=false")
        for name, value in made.environment.items():
            patch.setenv(name, value)
        yield made.address, node


class Pace:
    """Looks at two searches again and again while they run.

    Attributes:
        apart: the largest difference of trials that the tasks had been given.
        open: the most trials that were open at once.
    """

    def __init__(self, storage: Path) -> None:
        self._storage = storage
        self.apart = 0
        self.open = 0

    def done(self) -> int:
        """How many trials have ended; notes the rest."""
        before, both, after = (self._counts(task) for task in (*SEARCHED, SEARCHED[0]))
        if before == after:  # or one started while we looked
            self.apart = max(self.apart, abs(before[0] - both[0]))
            self.open = max(self.open, before[1] + both[1])
        return sum(done_of(self._storage, task) for task in SEARCHED)

    def _counts(self, task: str) -> tuple[int, int]:
        trials = trials_of(self._storage, task)
        return len(trials), sum(trial["state"] == "started" for trial in trials.values())


@pytest.mark.timeout(300)
def test_searches_of_a_whole_bank_are_fair_and_survive_the_loss_of_workers_and_driver(
    machine: tuple[str, Node], tmp_path: Path
) -> None:
    address, node = machine
    bank = make_search_bank(tmp_path / "bank", TASKS, search=_SEARCH, epochs=EPOCHS)
    alone, together = tmp_path / "alone", tmp_path / "together"
    every = ("tune", "--all", "--storage", together.as_uri(), "--address")
    for task in SEARCHED:  # each by itself, on a machine of its own
        one = run_program(bank, "tune", task, "--storage", alone.as_uri(), "--address", address)
        assert one.returncode == 0, one.stderr
    best = {task: take_best(bank, task) for task in SEARCHED}

    def started(count: int) -> bool:
        return sum(bool(kept_of(together, task)) for task in SEARCHED) == count

    pace = Pace(together)
    with start_program(bank, *every, address) as search:
        wait_until(lambda: pace.done() == 0 and started(1), "a trial runs")
        first = node.trials()
        suspend(first)  # or it would have done them all before there is a second worker
        wait_until(lambda: pace.done() == 0 and started(2), "a trial of each task runs")
        second = node.trials() - first
        suspend(second)
        kept = {task: kept_of(together, task) for task in SEARCHED}
        os.kill(second.pop(), signal.SIGKILL)
        resume(first)
        wait_until(lambda: pace.done() >= 3, "half of the trials are done")
        ended = {task: trials_of(together, task) for task in SEARCHED}
        search.kill()
        assert search.wait() == -signal.SIGKILL
    wait_until(lambda: not node.trials(), "the driver's workers are gone with it")
    resumed = run_program(bank, *every, address, "--resume")

    assert resumed.returncode == 0, resumed.stderr
    assert _LEFT_OUT in resumed.stderr
    for task in SEARCHED:
        trials = trials_of(together, task)
        assert figures(trials) == figures(trials_of(alone, task))
        assert [trial["state"] for trial in trials.values()] == ["finished"] * TRIALS
        assert best_of(bank, task) == best[task]
        for number, seconds in kept[task].items():  # no epoch that was kept was trained again
            assert seconds_of(trials[number])[: len(seconds)] == seconds, (task, number)
        for number, trial in ended[task].items():
            if trial["state"] != "started":  # latencies are measured at the end
                assert seconds_of(trials[number]) == seconds_of(trial), (task, number)
    first_figures, other_figures = (figures(trials_of(together, task)) for task in SEARCHED)
    assert first_figures != other_figures  # or one could have stood for the other
    assert pace.apart <= 1
    assert all(len(open_ones) == 1 for open_ones in kept.values())  # one of each, on two CPUs
    assert pace.open in {2, 3}  # two run, and one may wait for its worker
    assert_complete_ones_run_no_more(bank, (*every, _NOBODY), best)


def assert_complete_ones_run_no_more(
    bank: Path, command: tuple[str, ...], best: dict[str, Any]
) -> None:
    """Check that it all ends at once, without a cluster, and in the same winners."""
    assert not (bank / "work" / "solved" / "best.json").exists()
    again = run_program(bank, *command, "--json")
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert told["left_out"] == ["solved"]
    assert [one["task"] for one in told["searches"]] == list(SEARCHED)
    assert [{k: one[k] for k in best["first"]} for one in told["searches"]] == [
        best[task] for task in SEARCHED
    ]
    stage = run_program(bank, "stage", "tune", "solved")  # as `dvc repro` does
    assert stage.returncode == 0, stage.stderr
    assert _LEFT_OUT in stage.stderr
    assert best_of(bank, "solved") == {"schema": 1, "pinned": True}
