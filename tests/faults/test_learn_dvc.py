"""Learning by the real DVC: killed half-way and repeated, it is what plain ``dvc repro`` gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from adapterbank.bank.bank import Bank
from adapterbank.bank.scaffold import init_bank
from adapterbank.config.params_file import add_task
from adapterbank.continual.matrix import MATRIX, read_matrix
from adapterbank.integrations.dvc.repo import ensure_dvc, repro
from tests.learning import ENTRIES, new_bank, write_scenario

# Both are new: a version that replaces another has no place in a configuration written at once.
TWO = ENTRIES[:2]


def make(root: Path) -> Path:
    """Make a bank under DVC, whose configuration has all sections that the pipeline names."""
    new_bank(root)
    params = root / "pipelines/params.yaml"
    line = "    train: {epochs: 1, batch_size: 8}\n"
    text = params.read_text().replace(line, f"{line}    search: null\n")
    sections = "gates: {min_accuracy: 0.0}\nrouter: {blocks: null}\nspaces: {}\n"
    params.write_text(sections + text)
    init_bank(root, git=False)
    ensure_dvc(root, git=False)
    return root


def digests(root: Path) -> Mapping[str, Any]:
    registry = Bank.open(root).registry
    return {task: [one.digest for one in registry.versions(task)] for task in registry.tasks()}


@pytest.mark.timeout(1200)  # some 25 stages, each a process that imports torch
def test_killed_and_repeated_it_is_what_plain_repro_gives(tmp_path: Path) -> None:
    plain, learned = make(tmp_path / "plain"), make(tmp_path / "learned")
    for entry in TWO:
        add_task(plain, entry["task"], {key: entry[key] for key in entry if key != "task"})
    repro(plain)

    words = [sys.executable, "-m", "adapterbank", "learn", str(write_scenario(learned, TWO))]
    begun = subprocess.Popen(words, cwd=learned, start_new_session=True)
    deadline = time.monotonic() + 600
    while not (learned / "work/greens/data/task.json").is_file() and time.monotonic() < deadline:
        assert begun.poll() is None, "it ended before it was killed"
        time.sleep(0.05)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    assert [step.task for step in read_matrix(learned).steps] == ["reds"]

    subprocess.run(words, cwd=learned, check=True)
    assert digests(learned) == digests(plain)
    assert (learned / MATRIX).read_bytes() == (plain / MATRIX).read_bytes()
    assert [step.task for step in read_matrix(learned).steps] == ["reds", "greens"]
