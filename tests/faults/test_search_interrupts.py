"""Searches that are interrupted, killed or cut off come to the end of one that never was.

Every search here is the real program in a process of its own; ``--max-concurrent`` and all else
that may differ between runs is fixed, so results must agree to the last bit.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from adapterbank.__main__ import main
from tests import search_runs as runs
from tests.search_runs import TUNE, Search

_RANDOM = "sampler: random, scheduler: none, trials: 10, max_concurrent: 2, seed: 3"
_OPTUNA = "sampler: optuna, scheduler: none, trials: 6, max_concurrent: 1, seed: 3"
_GRID = "sampler: grid, scheduler: none, trials: null, max_concurrent: 1"
_GRID_RATES = "[0.001, 0.05, 1.0e+30]"  # the last one diverges
_SHORT = 4  # epochs, where trials are not to be caught halfway
_SOON_S = 45.0  # it takes three where nothing else runs
_REPRO = ("-m", "dvc", "repro", "--single-item", f"tune@{runs.TASK}")
# Ray's own, which report for a minute that their node was killed, to nobody.
_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
_RESUME = (*TUNE, "--resume")


class Workshop:
    """Makes banks and starts programs in them; none outlives its test.

    Args:
        bank: prepared, without a search.
    """

    def __init__(self, bank: Path, where: Path) -> None:
        self._bank = bank
        self._where = where
        self._started: list[Search] = []

    def bank(self, name: str, search: str, **settings: object) -> Path:
        """Copy the bank and say what is to be searched."""
        root = self._where / name
        shutil.copytree(self._bank, root, symlinks=True)
        return runs.configure(root, search, **settings)  # type: ignore[arg-type]

    def start(self, root: Path, *words: str) -> Search:
        """Start a program."""
        self._started.append(Search(root, words))
        return self._started[-1]

    def finish(self, root: Path, *words: str) -> str:
        """Run a program to its good end and return what it says."""
        search = self.start(root, *words)
        ran = search.ended()
        assert ran.code == 0, ran
        search.when_alone()
        return ran.out + ran.err

    def close(self) -> None:
        """Kill what is left."""
        for search in self._started:
            search.kill()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bank whose backbone and images are in place."""
    root = runs.make_bank(tmp_path_factory.mktemp("prepared") / "bank")
    runs.configure(root, _RANDOM)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["stage", "backbone"]) == 0
        assert main(["stage", "prepare", runs.TASK]) == 0
    return root


@pytest.fixture
def shop(prepared: Path, tmp_path: Path) -> Iterator[Workshop]:
    """Return a workshop of the test's own."""
    made = Workshop(prepared, tmp_path)
    yield made
    made.close()


def _assert_equal(root: Path, undisturbed: Search) -> None:
    whole = undisturbed.root
    ran = undisturbed.ended()
    assert ran.code == 0, ran
    runs.assert_sound(whole)
    assert runs.results(root) == runs.results(whole)
    assert runs.best(root) == runs.best(whole)
    assert runs.table(root) == runs.table(whole)
    runs.assert_sound(root)


def _assert_not_trained_twice(root: Path, before: runs.Kept) -> None:
    """Check that every epoch that a checkpoint had is the one that counts, its time too."""
    now = runs.trials(root)
    for number, epochs in before.items():
        points = now[number]["points"][: len(epochs)]
        assert [(e["number"], e["seconds"], e["loss"]) for e in epochs] == [
            (p["epoch"], p["seconds"], p["loss"]) for p in points
        ]


def _stop_after(
    trials: int, search: Search, number: signal.Signals, *, group: bool = False
) -> runs.Kept:
    """Stop a search in the middle of a trial, as soon as it has done so many."""
    search.when_in_a_trial(after=trials)
    return _stop(search, number, group=group)


def _stop(search: Search, number: signal.Signals, *, group: bool = False) -> runs.Kept:
    """Stop a search, check how it ends and return what its trials have kept."""
    search.send(number, group=group)
    ran = search.ended(_SOON_S)
    if number is signal.SIGKILL:
        assert ran.code == -signal.SIGKILL
        search.when_alone(but=_AGENTS)
    else:
        search.when_alone()
        assert ran.code == 128 + number, ran
        assert "Traceback" not in ran.err + ran.out
        assert f"adapterbank tune {runs.TASK} --resume" in ran.err
        assert "*** SIG" not in ran.err  # nor one of Ray's own
    return runs.kept(search.root)


def _lose_storage(search: Search) -> runs.Kept:
    """Put a file in place of a search's folder, see it end, and put the folder back."""
    state, aside = runs.folder(search.root), search.root / "aside"
    state.rename(aside)
    state.write_text("not a folder")
    ran = search.ended()
    search.when_alone()
    assert ran.code == 1, ran
    assert "Traceback" not in ran.err
    assert "ERROR" not in ran.err
    assert str(state) in ran.err
    state.unlink()
    aside.rename(state)
    assert "failed" not in {trial["state"] for trial in runs.trials(search.root).values()}
    return runs.kept(search.root)


@pytest.mark.timeout(900)
def test_a_random_search_that_is_stopped_in_every_way_ends_as_if_it_never_was(
    shop: Workshop,
) -> None:
    whole = shop.start(shop.bank("whole", _RANDOM), *TUNE)
    root = shop.bank("bank", _RANDOM)
    registry = runs.tree(root / "registry")

    search = shop.start(root, *TUNE)
    search.when((runs.folder(root) / "search.json").exists, "the search has begun")
    _stop(search, signal.SIGKILL)
    assert not runs.kept(root)

    search = shop.start(root, *TUNE)
    search.when(lambda: bool(runs.halfway(root)), "a trial is under way")
    first = _stop(search, signal.SIGKILL)
    assert runs.done(root) == 0
    assert first

    second = _stop_after(2, shop.start(root, *_RESUME), signal.SIGINT, group=True)  # Ctrl-C
    assert [run.info.status for run in runs.logged(root)[0]] == ["KILLED"]

    third = _stop_after(1, shop.start(root, *_RESUME), signal.SIGTERM)
    assert [run.info.status for run in runs.logged(root)[0]] == ["KILLED"]

    search = shop.start(root, *_RESUME)
    search.when_in_a_trial(after=1)
    fourth = _lose_storage(search)

    search = shop.start(root, *_RESUME)  # a worker lost, the search not
    search.when_in_a_trial(after=1)
    workers = search.trials()
    assert workers
    for worker in workers:
        worker.kill()
    fifth = runs.kept(root)
    ran = search.ended()
    search.when_alone()
    assert ran.code == 0, ran

    _assert_equal(root, whole)
    for before in (first, second, third, fourth, fifth):
        _assert_not_trained_twice(root, before)
    assert runs.tree(root / "registry") == registry


@pytest.mark.timeout(600)
def test_a_worker_lost_between_two_trials_costs_neither_of_them(
    shop: Workshop,
) -> None:
    whole = shop.start(shop.bank("whole", _OPTUNA), *TUNE)
    root = shop.bank("bank", _OPTUNA)

    search = shop.start(root, *TUNE)
    for trials in (1, 2, 3, 5, 6):  # one trial ends, the next one is to run on the same worker
        search.when(partial(_has_done, root, trials), f"{trials} trials are done")
        for worker in search.trials():
            worker.kill()
    ran = search.ended()
    search.when_alone()
    assert ran.code == 0, ran

    _assert_equal(root, whole)


@pytest.mark.timeout(600)
def test_a_grid_that_dvc_runs_goes_on_after_a_kill_by_running_dvc_again(
    shop: Workshop,
) -> None:
    whole = shop.start(shop.bank("whole", _GRID, rates=_GRID_RATES), *TUNE)
    root = shop.bank("bank", _GRID, rates=_GRID_RATES)
    registry = runs.tree(root / "registry")

    search = shop.start(root, *_REPRO)
    search.when((runs.folder(root) / "search.json").exists, "the search has begun")
    driver = search.driver()
    search.when_in_a_trial(after=1)
    signalled = runs.kept(root)
    driver.kill()
    assert search.ended().code != 0
    search.when_alone(but=_AGENTS)
    said = shop.finish(root, *_REPRO)

    assert "Going on with the search of colours" in said
    _assert_equal(root, whole)
    _assert_not_trained_twice(root, signalled)
    assert runs.tree(root / "registry") == registry
    # A rate of 10^30 is among the grid's.
    bad = {n: t for n, t in runs.trials(root).items() if t["values"]["learning_rate"] == 1e30}
    assert {trial["state"] for trial in bad.values()} == {"diverged"}
    assert all("training diverged" in trial["error"] for trial in bad.values())
    assert runs.best(root)["trial"] not in bad


@pytest.mark.timeout(600)
def test_optuna_is_told_what_it_knew_before_it_was_killed(
    shop: Workshop,
) -> None:
    whole = shop.start(shop.bank("whole", _OPTUNA), *TUNE)
    root = shop.bank("bank", _OPTUNA)

    first = _stop_after(3, shop.start(root, *TUNE), signal.SIGKILL)
    second = _stop_after(1, shop.start(root, *_RESUME), signal.SIGINT)  # to it alone, no terminal
    shop.finish(root, *_RESUME)

    _assert_equal(root, whole)
    for before in (first, second):
        _assert_not_trained_twice(root, before)


@pytest.mark.timeout(600)
def test_a_search_of_which_nothing_came_is_an_error_and_goes_on_once_its_cause_is_mended(
    shop: Workshop,
) -> None:
    root = shop.bank("bank", "sampler: random, scheduler: none, trials: 1")
    stuck = _stick(root, 0)

    ran = shop.start(root, *TUNE).ended()
    assert ran.code == 1, ran
    assert "no trial of colours came to anything" in ran.err
    assert "is not a regular file" in ran.err
    assert "ERROR" not in ran.err  # nothing of Tune's own
    assert not (root / "work" / runs.TASK / "best.json").exists()

    stuck.rmdir()
    shop.finish(root, *_RESUME)
    assert {n: t["state"] for n, t in runs.trials(root).items()} == {0: "finished"}
    assert runs.best(root)["trial"] == 0
    runs.assert_sound(root)


@pytest.mark.timeout(600)
def test_minutes_end_a_search_and_what_mlflow_missed_is_sent_by_running_it_again(
    shop: Workshop,
) -> None:
    root = shop.bank(
        "bank",
        "sampler: random, scheduler: none, trials: 1000, max_concurrent: 2, minutes: 0.8",
        epochs=_SHORT,
    )
    database = root / "mlflow.db"
    _stick(root, 1)

    search = shop.start(root, *TUNE)
    search.when(lambda: runs.done(root) >= 2, "two trials are done")
    good, begun = _lose(database), time.monotonic()
    ran = search.ended()
    assert ran.code == 1, ran
    assert "Traceback" not in ran.err
    assert "MLflow store" in ran.err
    assert time.monotonic() - begun < 48 + _SOON_S
    chosen = runs.best(root)["trial"]
    trials = runs.trials(root)
    furthest = max(len(trial["points"]) for trial in trials.values())
    assert furthest == _SHORT
    assert len(trials[chosen]["points"]) == furthest
    # Tune tries it again when it finds the time, which here it need not have.
    assert trials[1]["state"] in {"failed", "started"}
    assert ("colours trial 1  no epoch" in ran.err) == (trials[1]["state"] == "failed")
    for number, epochs in runs.kept(root).items():
        # What the clock cut off counts as far as the driver had heard of it.
        trial = trials[number]
        assert len(epochs) - len(trial["points"]) in {0, 1}
        assert trial["state"] == _state_after(len(trial["points"]))
    assert len(trials) < 1000

    database.write_bytes(good)
    before = runs.tree(root / "work")
    said = shop.finish(root, *TUNE)
    assert "is complete" in said
    assert runs.tree(root / "work") == before
    runs.assert_sound(root)


def _has_done(root: Path, trials: int) -> bool:
    return runs.done(root) >= trials


def _state_after(epochs: int) -> str:
    return "finished" if epochs == _SHORT else "stopped" if epochs else "started"


def _stick(root: Path, number: int) -> Path:
    """Make a trial fail: where its checkpoint should be, there is a folder."""
    path = runs.folder(root) / "trials" / f"{number:05}.safetensors"
    path.mkdir(parents=True)
    return path


def _lose(database: Path) -> bytes:
    """Make a database unreadable, in place, once nobody is writing to it; return its content."""
    connection = sqlite3.connect(database)
    connection.execute("BEGIN IMMEDIATE")
    good = database.read_bytes()
    with database.open("r+b") as file:
        file.write(b"\0" * 100)  # the header
    connection.close()
    return good
