"""A training killed at any moment and started again gives the bytes of one that never was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from adapterbank.bank.bank import Bank
from adapterbank.errors import TrainingDiverged
from adapterbank.integrations.mlflow.store import open_client
from adapterbank.pipeline.prepare import prepare
from adapterbank.pipeline.train import train
from adapterbank.training import code
from adapterbank.training.sinks import Epoch
from tests.cli_samples import PARAMS, Cli

TASK = "colours"
EPOCHS = 4  # of three steps each
LONGER = PARAMS.replace("epochs: 1", f"epochs: {EPOCHS}")

# Forks one process for each moment; each is killed there, the last one finishes.
MORTALS = """
import os, pickle, signal, sys
from pathlib import Path
from adapterbank import durable
from adapterbank.pipeline import train as train_stage
from adapterbank.bank.bank import Bank
from adapterbank.training.checkpoint import Checkpointer

root, task = Path(sys.argv[1]), sys.argv[2]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class DieAt:
    def __init__(self, step=None, epoch=None):
        self.at = (step, epoch)
    def step(self, done, total):
        if done == self.at[0]:
            die()
    def epoch(self, epoch):
        if epoch.number == self.at[1]:
            die()

def before(owner, name):
    setattr(owner, name, lambda *args, **keys: die())

def after(owner, name):
    real = getattr(owner, name)
    setattr(owner, name, lambda *args, **keys: (real(*args, **keys), die()))

def refuse(*args, **keys):
    raise AssertionError("pickle")

def without_pickle():
    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        setattr(pickle, name, refuse)

def in_child(prepare, sinks=()):
    child = os.fork()
    if child == 0:
        try:
            prepare()
            train_stage.train(Bank.open(root), task, sinks=sinks, note=say)
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def say(text):
    print(text, flush=True)

nothing = lambda: None
for moment, (prepare, sinks) in {
    "first step": (nothing, (DieAt(step=1),)),
    "whole epoch": (nothing, (DieAt(epoch=1),)),
    "within the second": (nothing, (DieAt(step=5),)),
    "before a checkpoint's rename": (lambda: before(Path, "replace"), ()),
    "after a checkpoint's rename": (lambda: after(Path, "replace"), ()),
    "third epoch's last step": (nothing, (DieAt(step=9),)),
    "last step": (nothing, (DieAt(step=12),)),
    "last epoch": (nothing, (DieAt(epoch=4),)),
    "before the result": (lambda: before(durable, "replace_directory"), ()),
    "after the result": (lambda: after(durable, "replace_directory"), ()),
    "before the end": (lambda: before(Checkpointer, "discard"), ()),
}.items():
    assert in_child(prepare, sinks) == -signal.SIGKILL, moment
assert in_child(without_pickle) == 0
"""


class Interrupting:
    """A sink that stands for Ctrl-C after an epoch."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def step(self, done: int, total: int) -> None:
        """Nothing."""

    def epoch(self, epoch: Epoch) -> None:
        if epoch.number == self._epoch:
            raise KeyboardInterrupt


def write(bank: Path, params: str) -> Bank:
    (bank / "pipelines" / "params.yaml").write_text(params)
    return Bank.open(bank)


def trained(bank: Bank) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bank.trained(TASK).iterdir()}


def interrupted(bank: Bank, epoch: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(bank, TASK, sinks=(Interrupting(epoch),))
    assert bank.checkpoint(TASK).is_dir()


@pytest.fixture
def longer(bank: Path) -> Bank:
    """Return a bank whose training has four epochs, with nothing trained."""
    opened = write(bank, LONGER)
    prepare(opened, TASK)
    shutil.rmtree(opened.trained(TASK))
    return opened


@pytest.fixture
def whole(longer: Bank) -> dict[str, bytes]:
    """Return what a training gives that nobody stops."""
    train(longer, TASK)
    files = trained(longer)
    shutil.rmtree(longer.trained(TASK))
    return files


@pytest.mark.faults
def test_killed_at_many_moments_it_ends_with_the_bytes_of_one_that_was_not(
    longer: Bank, whole: dict[str, bytes]
) -> None:
    longer.note(TASK, "run.json").unlink()  # DVC deletes it before the stage runs
    done = subprocess.run(
        [sys.executable, "-c", MORTALS, str(longer.root), TASK],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert trained(longer) == whole
    assert not longer.checkpoint(TASK).exists()
    continued = [f"Continuing at epoch {number} of 4" for number in (2, 2, 2, 3, 3, 4)]
    assert done.stdout.splitlines() == [*continued, *["All 4 epochs are done: finishing"] * 4]
    _check_run(longer)


def _check_run(bank: Bank) -> None:
    run_id = json.loads(bank.note(TASK, "run.json").read_text())["run_id"]
    client = open_client(bank.root)
    assert client.get_run(run_id).info.status == "FINISHED"
    history = client.get_metric_history(run_id, "train/loss")
    assert [value.step for value in history] == [1, 2, 3, 4]
    inputs = client.get_run(run_id).inputs
    assert inputs is not None
    assert len(inputs.dataset_inputs) == 1


def test_the_same_command_goes_on_and_says_where(
    longer: Bank, whole: dict[str, bytes], cli: Cli
) -> None:
    interrupted(longer, 2)
    ran = cli("train", TASK)
    assert ran.code == 0
    assert "Continuing at epoch 3 of 4\n" in ran.err
    assert "epoch 4/4" in ran.err
    assert "epoch 2/4" not in ran.err
    assert trained(longer) == whole
    assert not longer.checkpoint(TASK).exists()
    assert "Continuing" not in cli("train", TASK).err
    interrupted(longer, 2)
    assert cli("train", TASK, "--json").err == ""


def test_the_seconds_of_a_training_are_those_of_all_its_processes(longer: Bank) -> None:
    interrupted(longer, 4)
    result = train(longer, TASK)
    run_id = json.loads(longer.note(TASK, "run.json").read_text())["run_id"]
    assert result["seconds"] > 0.0
    (value,) = open_client(longer.root).get_metric_history(run_id, "seconds")
    assert value.value == pytest.approx(result["seconds"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed: 1", "seed: 2"),
        ("batch_size: 8", "batch_size: 7"),
        ("batch_size: 8", "batch_size: 8, threads: 2"),
        ("rank: 2", "rank: 1"),
    ],
)
def test_a_training_that_is_another_starts_from_the_beginning(
    longer: Bank, cli: Cli, old: str, new: str
) -> None:
    other = write(longer.root, LONGER.replace(old, new))
    prepare(other, TASK)
    train(other, TASK)
    files = trained(other)
    interrupted(write(longer.root, LONGER), 2)
    other = write(longer.root, LONGER.replace(old, new))
    ran = cli("train", TASK)
    assert "other data, settings or code: starting from the beginning" in ran.err
    assert "Continuing" not in ran.err
    assert trained(other) == files


@pytest.mark.parametrize(("file", "note"), [
    ("cli/app.py", "Continuing at epoch 3 of 4"),
    ("methods/vapt.py", "other data, settings or code: starting from the beginning"),
])  # fmt: skip
def test_code_that_no_training_runs_may_change_before_it_goes_on(
    longer: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, note: str
) -> None:
    package = tmp_path / "adapterbank"
    shutil.copytree(code.ROOT, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", package)
    interrupted(longer, 2)
    (package / file).write_text((package / file).read_text() + "# changed\n")
    notes: list[str] = []
    train(longer, TASK, note=notes.append)
    assert [line.endswith(note) for line in notes] == [True]


def test_a_damaged_checkpoint_costs_time_and_nothing_else(
    longer: Bank, whole: dict[str, bytes], cli: Cli
) -> None:
    interrupted(longer, 3)
    (path,) = longer.checkpoint(TASK).iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    ran = cli("train", TASK)
    assert ran.code == 0
    assert "is damaged" in ran.err
    assert trained(longer) == whole


def test_a_run_deleted_in_mlflow_is_followed_by_one_with_all_epochs(longer: Bank) -> None:
    interrupted(longer, 2)
    client = open_client(longer.root)
    experiment = client.get_experiment_by_name(TASK)
    assert experiment is not None
    (lost, *_) = client.search_runs([experiment.experiment_id], max_results=1)
    client.delete_run(lost.info.run_id)
    train(longer, TASK)
    run_id = json.loads(longer.note(TASK, "run.json").read_text())["run_id"]
    assert client.get_run(run_id).data.tags["adapterbank.continues"] == lost.info.run_id
    _check_run(longer)


def test_a_training_that_diverged_has_nothing_to_go_on_to(longer: Bank) -> None:
    # The published recipe stands still in the first epoch, so one is kept before it overflows.
    diverging = "epochs: 4, recipe: paper, learning_rate: 1.0e+30"
    bank = write(longer.root, LONGER.replace("epochs: 4", diverging))
    kept: list[bool] = []

    class Looking(Interrupting):
        def epoch(self, epoch: Epoch) -> None:
            assert epoch.number == 1
            kept.append(bank.checkpoint(TASK).is_dir())

    with pytest.raises(TrainingDiverged):
        train(bank, TASK, sinks=(Looking(0),))
    assert kept == [True]
    assert not bank.checkpoint(TASK).exists()


def test_git_does_not_see_a_banks_checkpoints(tmp_path: Path) -> None:
    templates = resources.files("adapterbank.bank").joinpath("templates")
    (tmp_path / ".gitignore").write_bytes(templates.joinpath("gitignore").read_bytes())
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)  # noqa: S607  # as found
    seen = subprocess.run(
        ["git", "check-ignore", "work/dtd/checkpoint/training.safetensors"],  # noqa: S607
        cwd=tmp_path,
        check=False,
        capture_output=True,
    )
    assert seen.returncode == 0
