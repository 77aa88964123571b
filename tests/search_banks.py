"""A bank whose tasks have a small search, the program that searches, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from adapterbank.search.ledger import training_file
from adapterbank.search.storage import Storage
from tests.cli_samples import draw

_PARAMS = """\
profile: tiny
profiles:
  tiny:
    limits: {{train: 30, val: 18, test: 12}}
    train: {{epochs: {epochs}, batch_size: 8}}
    search: {search}
backbone:
  uri: "random://vit_tiny_patch16_224?seed=0&depth=2&embed_dim=32&num_heads=2"
  size: [32, 32]
spaces:
  vapt:
    prompts: [2, 3, 4]
    rank: [2, 3]
    kernel: [1]
    learning_rate: {{low: 1.0e-3, high: 3.0e-1, log: true}}
tasks:
{tasks}
"""


def make_search_bank(
    root: Path, tasks: Mapping[str, str] | None = None, *, search: str, epochs: int
) -> Path:
    """Write a bank's parameters and images; nothing is fetched or prepared yet.

    Args:
        root: the bank's folder.
        tasks: their methods by name; one task ``colours`` with VAPT by default.
        search: the profile's search, in YAML.
        epochs: of a whole trial.
    """
    methods = {"colours": "vapt"} if tasks is None else tasks
    lines = [
        f"  {name}: {{data: photos, method: {method}, seed: {seed}}}"
        for seed, (name, method) in enumerate(methods.items(), 1)
    ]
    params = root / "pipelines" / "params.yaml"
    params.parent.mkdir(parents=True, exist_ok=True)
    params.write_text(_PARAMS.format(search=search, epochs=epochs, tasks="\n".join(lines)))
    (root / "registry").mkdir(exist_ok=True)
    _draw_shades(root / "photos")
    return root


def _draw_shades(folder: Path) -> None:
    """Draw three shades so alike that trials differ in how many images they get right."""
    generator = np.random.default_rng(0)
    for index, name in enumerate(("bright", "dark", "dim")):
        for number in range(24):
            red, green, blue = (int(x) for x in 110 + 12 * index + generator.normal(0, 12, 3))
            draw(folder / name / f"{number:02}.png", (red, green, blue), 100 * index + number)


def run_program(
    root: Path, *words: str, environment: Mapping[str, str] | None = None, timeout: float = 110.0
) -> subprocess.CompletedProcess[str]:
    """Run the program in a bank and return what it said."""
    with start_program(root, *words, environment=environment) as child:
        out, err = child.communicate(timeout=timeout)
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


@contextmanager
def start_program(
    root: Path, *words: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start the program in a bank; it is dead after the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "adapterbank", *words],
        cwd=root,
        env=os.environ | dict(environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def trials_of(storage: str | Path, task: str) -> dict[int, dict[str, Any]]:
    """Read what a storage holds of a task's trials, by number."""
    place = Storage(storage).inside(task)
    found = {}
    for name in place.names("trials"):
        stem, _, kind = name.partition(".")
        if kind == "json":
            found[int(stem)] = json.loads(place.read(f"trials/{name}") or b"")
    return found


def done_of(storage: str | Path, task: str) -> int:
    """How many trials have ended."""
    return sum(trial["state"] != "started" for trial in trials_of(storage, task).values())


def kept_of(storage: str | Path, task: str) -> dict[int, list[float]]:
    """Read how long each epoch took that open trials have kept; no two of these are alike."""
    found = {}
    for number, trial in trials_of(storage, task).items():
        data = Storage(storage).inside(task).read(training_file(number))
        if trial["state"] == "started" and data is not None:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            document = json.loads(header["__metadata__"]["text"])
            found[number] = [epoch["seconds"] for epoch in document["epochs"]]
    return found


def seconds_of(trial: Mapping[str, Any]) -> list[float]:
    """How long each epoch of a trial took."""
    return [point["seconds"] for point in trial["points"]]


def figures(trials: Mapping[int, Mapping[str, Any]]) -> dict[int, Any]:
    """What trials gave, without what differs between any two runs of them: times."""
    return {
        number: (
            trial["state"],
            trial["values"],
            [{k: v for k, v in point.items() if k != "seconds"} for point in trial["points"]],
        )
        for number, trial in trials.items()
    }


def best_of(bank: Path, task: str) -> dict[str, Any]:
    """Read what training of a task takes up."""
    best: dict[str, Any] = json.loads((bank / "work" / task / "best.json").read_bytes())
    return best


def take_best(bank: Path, task: str) -> dict[str, Any]:
    """Read it, and take it away: the next search must write its own."""
    best = best_of(bank, task)
    (bank / "work" / task / "best.json").unlink()
    return best
