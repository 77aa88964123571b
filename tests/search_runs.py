"""Whole searches by the real program, each in a process of its own that can be killed."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
from mlflow.entities import Run
from safetensors import safe_open

from adapterbank.bank.scaffold import init_bank
from adapterbank.integrations.environment import DEFAULTS
from adapterbank.integrations.mlflow.store import open_client
from tests.cli_samples import COLOURS, Ran, draw

TASK = "colours"
EPOCHS = 10
TUNE = ("-m", "adapterbank", "tune", TASK)

# Slow enough to be killed in the middle of a trial, which takes about a second.
_PARAMS = """\
profile: tiny
profiles:
  tiny:
    limits: {{train: 24, val: 24, test: 12}}
    train: {{epochs: {epochs}, batch_size: 2}}
    search: {{{search}}}
backbone:
  uri: "random://vit_tiny_patch16_224?seed=0&depth=4&embed_dim=32&num_heads=2"
  size: [32, 32]
tasks:
  colours:
    data: photos
    method: vapt
    hyper: {{prompts: 2, rank: 2, kernel: 1}}
    seed: 1
spaces:
  vapt:
    learning_rate: {rates}
    weight_decay: [0.0, 0.01]
"""
_PATIENCE_S = 180.0  # for a machine that does other things too
_ALONE_S = 30.0
RATES = "{low: 0.001, high: 0.5, log: true}"


def make_bank(root: Path) -> Path:
    """Make a bank under DVC whose three colours overlap, so that no trial is right throughout."""
    init_bank(root, git=False)
    shades = np.random.default_rng(0).integers(-140, 141, (len(COLOURS), 20, 3))
    for index, (name, colour) in enumerate(COLOURS.items()):
        for number in range(20):
            red, green, blue = (int(c) for c in np.array(colour) + shades[index, number])
            path = root / "photos" / name / f"{number:02}.png"
            draw(path, (red, green, blue), 100 * index + number)
    return root


def configure(root: Path, search: str, *, rates: str = RATES, epochs: int = EPOCHS) -> Path:
    """Say what is to be searched and how."""
    text = _PARAMS.format(search=search, rates=rates, epochs=epochs)
    (root / "pipelines" / "params.yaml").write_text(text)
    return root


Kept = dict[int, list[dict[str, Any]]]
"""Epochs by trial."""


@dataclass
class Search:
    """A program at work in a bank, in a session of its own, with all that it starts."""

    root: Path
    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.already = done(self.root)  # trials, before it began
        self._log = self.root.parent / f"{self.root.name}-{time.monotonic_ns()}"
        with self._log.with_suffix(".out").open("wb") as out, self._err.open("wb") as err:
            self._child = subprocess.Popen(
                [sys.executable, *self.words],
                cwd=self.root,
                env={**os.environ, **DEFAULTS, "PYTHONFAULTHANDLER": "1", **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def _err(self) -> Path:
        return self._log.with_suffix(".err")

    def when_in_a_trial(self, *, after: int) -> None:
        """Wait until it has done so many trials itself and is in the middle of another."""

        def there() -> bool:
            return done(self.root) >= self.already + after and bool(halfway(self.root))

        self.when(there, f"it has done {after} trials")

    @property
    def pid(self) -> int:
        """Process id, process group and session of the program."""
        return self._child.pid

    def when(self, true: Callable[[], bool], what: str) -> None:
        """Wait for something to become true while the program runs."""

        end = time.monotonic() + _PATIENCE_S
        while not true():
            gone = self._child.poll() is not None
            late = time.monotonic() > end or (gone and not true())
            assert not late, (what, self._err.read_text())
            time.sleep(0.01)

    def send(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to the program alone, or to its group as a terminal does."""
        (os.killpg if group else os.kill)(self.pid, number)

    def ended(self, seconds: float = _PATIENCE_S) -> Ran:
        """Wait for the end; say where the program is if it does not come."""
        try:
            code = self._child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGABRT)  # has its threads printed
            self._child.wait(timeout=_ALONE_S)
            pytest.fail(f"{self.words} did not end within {seconds} s: {self._err.read_text()}")
        return Ran(code, self._log.with_suffix(".out").read_text(), self._err.read_text())

    def processes(self) -> list[psutil.Process]:
        """All processes of the session but the program itself."""
        return [one for one in psutil.process_iter() if one.pid != self.pid and self._owns(one)]

    def driver(self) -> psutil.Process:
        """The process of the search that the program, DVC, runs.

        A shell may stand above it, and what it forks bears its title until it is something else.
        """
        words = f"stage tune tune@{TASK}"  # as DVC names the stage
        found = {
            one.pid: one
            for one in self.processes()
            if _title(one).endswith(words) and "python" in _title(one).partition(" ")[0]
        }
        (driver,) = [one for one in found.values() if _parent(one) not in {None, *found}]
        return driver

    def trials(self) -> list[psutil.Process]:
        """The workers that run trials."""
        return [one for one in self.processes() if _title(one).startswith("ray::ImplicitFunc")]

    def when_alone(self, *, but: tuple[str, ...] = ()) -> None:
        """Wait, for seconds, until nothing is left of what the program started, by title."""
        end = time.monotonic() + _ALONE_S
        while left := [one for one in self.processes() if not _title(one).startswith(but or "\0")]:
            assert time.monotonic() < end, [(one.pid, _title(one)) for one in left]
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill all of it."""
        for one in [self._child, *self.processes()]:
            one.kill()
        self._child.wait()

    def _owns(self, one: psutil.Process) -> bool:
        try:
            return os.getsid(one.pid) == self.pid and one.status() != psutil.STATUS_ZOMBIE
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False


def _title(one: psutil.Process) -> str:
    try:
        return " ".join(one.cmdline())
    except psutil.Error:
        return ""


def _parent(one: psutil.Process) -> int | None:
    try:
        return int(one.ppid())
    except psutil.Error:  # it has just ended
        return None


def folder(root: Path) -> Path:
    """Where a search of the bank keeps its state."""
    return root / "work" / TASK / "search"


def trials(root: Path) -> dict[int, dict[str, Any]]:
    """Every trial's file."""
    found = sorted((folder(root) / "trials").glob("[0-9]*.json"))
    return {int(path.stem): json.loads(path.read_text()) for path in found}


def done(root: Path) -> int:
    """How many trials have ended."""
    return sum(trial["state"] != "started" for trial in trials(root).values())


def kept(root: Path) -> Kept:
    """The epochs that each trial's own checkpoint has."""
    found = {}
    for path in sorted((folder(root) / "trials").glob("[0-9]*.safetensors")):
        if path.is_file():
            with safe_open(path, framework="np") as file:
                found[int(path.stem)] = json.loads(file.metadata()["text"])["epochs"]
    return found


def halfway(root: Path) -> list[int]:
    """Trials under way that will not be done before somebody can kill them."""
    ended = {number for number, trial in trials(root).items() if trial["state"] != "started"}
    return [n for n, epochs in kept(root).items() if n not in ended and len(epochs) < EPOCHS // 2]


def results(root: Path) -> dict[int, Any]:
    """All that two searches must have in common to the last bit: no times."""
    return {
        number: (
            trial["values"], trial["state"], trial["error"],
            [{k: v for k, v in point.items() if k != "seconds"} for point in trial["points"]],
        )
        for number, trial in trials(root).items()
    }  # fmt: skip


def table(root: Path) -> list[dict[str, str]]:
    """The table of all trials, without what was timed."""
    with (root / "work" / TASK / "trials.csv").open() as stream:
        return [{k: v for k, v in row.items() if k not in _TIMED} for row in csv.DictReader(stream)]


_TIMED = {"latency", "pareto"}


def best(root: Path) -> dict[str, Any]:
    """The winner's file."""
    found: dict[str, Any] = json.loads((root / "work" / TASK / "best.json").read_text())
    return found


def tree(path: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    return {
        one.relative_to(path).as_posix(): hashlib.sha256(one.read_bytes()).hexdigest()
        for one in sorted(path.rglob("*"))
        if one.is_file()
    }


def logged(root: Path) -> tuple[list[Run], dict[str, list[Run]]]:
    """The runs of searches in MLflow, and those of trials by number."""
    client = open_client(root)
    experiment = client.get_experiment_by_name(TASK)
    runs = [] if experiment is None else client.search_runs([experiment.experiment_id])
    nested: dict[str, list[Run]] = {}
    for run in runs:
        if "mlflow.parentRunId" in run.data.tags:
            nested.setdefault(run.data.tags.get("adapterbank.trial", "?"), []).append(run)
    return [run for run in runs if "mlflow.parentRunId" not in run.data.tags], nested


def history(root: Path, run: Run, metric: str) -> list[tuple[int, float]]:
    """All values of a metric, by step."""
    values = open_client(root).get_metric_history(run.info.run_id, metric)
    return sorted((value.step, value.value) for value in values)


def assert_sound(root: Path) -> None:
    """Check that a finished search has each trial and each epoch once, everywhere."""
    files, rows = trials(root), table(root)
    parents, nested = logged(root)

    assert sorted(files) == list(range(len(files)))
    assert sorted(int(row["trial"]) for row in rows) == sorted(files)
    assert [row["trial"] for row in rows if row["chosen"] == "1"] == [str(best(root)["trial"])]
    assert [run.info.status for run in parents] == ["FINISHED"]
    assert sorted(map(int, nested)) == sorted(files)
    for number, trial in files.items():
        (run,) = nested[str(number)]
        assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert run.info.status == "FINISHED"
        assert run.data.tags["adapterbank.state"] == trial["state"]
        for name, key in (("train/loss", "loss"), ("val/loss", "val_loss")):
            assert history(root, run, name) == [
                (point["epoch"], point[key]) for point in trial["points"]
            ]
        assert len(history(root, run, "parameters")) == 1
