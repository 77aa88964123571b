"""All tasks of a bank searched one after the other, on every CPU, through every fault."""

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


@pytest.mark.timeout(300)
def test_searches_of_a_whole_bank_survive_the_loss_of_workers_and_driver(
    machine: tuple[str, Node], tmp_path: Path
) -> None:
    address, node = machine
    bank = make_search_bank(tmp_path / "bank", TASKS, search=_SEARCH, epochs=EPOCHS)
    alone, together = tmp_path / "alone", tmp_path / "together"
    every = ("tune", "--all", "--storage", together.as_uri(), "--address")
    for task in SEARCHED:  # each by itself
        one = run_program(bank, "tune", task, "--storage", alone.as_uri(), "--address", address)
        assert one.returncode == 0, one.stderr
    best = {task: take_best(bank, task) for task in SEARCHED}
    first, other = SEARCHED

    with start_program(bank, *every, address) as search:
        wait_until(lambda: len(kept_of(together, first)) == 1, "a trial runs")
        workers = node.trials()
        suspend(workers)  # or it would have done them all before there is a second worker
        wait_until(lambda: len(kept_of(together, first)) == 2, "two trials run on two CPUs")
        lost = node.trials() - workers
        suspend(lost)
        kept = {first: kept_of(together, first)}
        assert trials_of(together, other) == {}  # its turn has not come
        os.kill(lost.pop(), signal.SIGKILL)
        resume(workers)
        wait_until(lambda: bool(kept_of(together, other)), "a trial of the other task runs")
        assert done_of(together, first) == TRIALS
        ended = trials_of(together, first)
        search.kill()
        kept[other] = kept_of(together, other)
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
    for number, trial in ended.items():
        assert seconds_of(trials_of(together, first)[number]) == seconds_of(trial)
    first_figures, other_figures = (figures(trials_of(together, task)) for task in SEARCHED)
    assert first_figures != other_figures  # or one could have stood for the other
    assert_complete_ones_run_no_more(bank, (*every, _NOBODY), best)


@pytest.mark.timeout(120)
def test_a_search_of_which_nothing_came_does_not_keep_the_next_task_from_its_own(
    machine: tuple[str, Node], tmp_path: Path
) -> None:
    address, _ = machine
    bank = make_search_bank(
        tmp_path / "bank",
        {"first": "vapt", "other": "vapt"},
        search="{sampler: random, scheduler: none, trials: 1, seed: 3}",
        epochs=2,
    )
    stuck = bank / "work" / "first" / "search" / "trials" / "00000.safetensors"
    stuck.mkdir(parents=True)  # where the trial's state should be

    ran = run_program(bank, "tune", "--all", "--address", address)

    assert (ran.returncode, ran.stdout) == (1, "")
    assert "no trial of first came to anything" in ran.stderr
    assert "is not a regular file" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert best_of(bank, "other")["trial"] == 0
    assert not (bank / "work" / "first" / "best.json").exists()


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
