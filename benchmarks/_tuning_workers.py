"""What workers that stay are worth: trials an hour, and how soon a trial takes its first step."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.bank.bank import Bank
from adapterbank.search import experiment, trial
from adapterbank.search.experiment import Proposals
from adapterbank.search.trial import Shared
from adapterbank.training.loop import train
from benchmarks._lone_trial import Marks
from benchmarks._tuning_bank import Report, Setting, at_once, search, shipped_space
from benchmarks._tuning_cost import levels

_GRID = {"sampler": "grid", "scheduler": "none", "trials": None}
_ROOT = Path(__file__).parents[1]
_START = ("a worker's first", "its second, same adapter", "its third, another adapter",
          "a process of its own")  # fmt: skip


def measure_throughput(setting: Setting, trials: int, rounds: int) -> Report:
    """Run the same trials through Tune and as processes of their own, one and two at once.

    All take turns in every round. Tune's time is all of ``tune``: starting Ray, MLflow's runs and
    the forwards measured at the end are in it.
    """
    rate = shipped_space()["learning_rate"]
    rates = levels(rate["low"], rate["high"], trials)
    setting.prepare()
    figures: list[dict[str, Any]] = []
    for number in range(rounds):
        for task in setting.tasks:
            bank = setting.bank(_GRID, {"learning_rate": rates})
            for count in (1, 2):
                done = search(bank, task, at_once(count))
                right = {t.number: t.points[-1].val.correct for t in done.trials if t.points}
                run = partial(_run_alone, bank, task, [{"learning_rate": one} for one in rates])
                begun = time.perf_counter()
                alone = [one["correct"] for one in run(count)]
                seconds = time.perf_counter() - begun
                common = {"task": task, "at_once": count, "round": number,
                          "equal": [right[i] for i in sorted(right)] == alone}  # fmt: skip
                figures.append({**common, "way": "Tune", "seconds": done.seconds,
                                "start_s": done.start_s})  # fmt: skip
                figures.append({**common, "way": "processes", "seconds": seconds, "start_s": 0.0})
    rows = []
    for task in setting.tasks:
        for count in (1, 2):
            for way in ("Tune", "processes"):
                mine = [f for f in figures if (f["task"], f["at_once"], f["way"]) ==
                        (task, count, way)]  # fmt: skip
                rows.append(_throughput_row(mine, trials))
    return Report(
        title=f"{trials} trials of {setting.epochs} epochs, the same each time; medians of"
        f" {rounds} rounds",
        columns=("task", "at once", "how", "seconds", "of these to start", "trials an hour",
                 "once started", "same answers"),
        rows=tuple(rows),
        figures=figures,
    )  # fmt: skip


def _throughput_row(runs: list[dict[str, Any]], trials: int) -> tuple[str, ...]:
    seconds = statistics.median(run["seconds"] for run in runs)
    start_s = statistics.median(run["start_s"] for run in runs)
    return (
        runs[0]["task"], str(runs[0]["at_once"]), runs[0]["way"], f"{seconds:.1f}",
        f"{start_s:.1f}", f"{3600 * trials / seconds:.0f}",
        f"{3600 * trials / (seconds - start_s):.0f}",
        "yes" if all(run["equal"] for run in runs) else "no",
    )  # fmt: skip


def measure_start(setting: Setting, rounds: int) -> Report:
    """Time three trials of one worker and one in a process of its own, up to their first step."""
    bank = setting.prepare()
    task = setting.tasks[0]
    rate = shipped_space()["learning_rate"]
    fewer, more = shipped_space()["prompts"][:2]
    pair = [rate["low"], rate["high"]]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in _START}
    for _ in range(rounds):
        bank = setting.bank(_GRID, {"prompts": [fewer, more], "learning_rate": pair})
        marks = _marked_search(bank, task)
        marks.update({3: _run_alone(bank, task, [{"prompts": fewer, "learning_rate": pair[0]}],
                                    1)[0]})  # fmt: skip
        for number, name in enumerate(_START):
            found[name].append(marks[number])
        assert len({marks[number]["pid"] for number in range(3)}) == 1, "not the same worker"
    rows = []
    for name, runs in found.items():
        seconds = [_median([run[key] - run["handed"] for run in runs])
                   for key in ("entered", "backbone", "data", "step")]  # fmt: skip
        grown = [_median([run["after"][kind] - run["before"][kind] for run in runs])
                 for kind in ("rss", "pss", "uss")]  # fmt: skip
        rows.append((name, *(f"{s:.2f}" for s in seconds), *(f"{m:.1f}" for m in grown)))
    return Report(
        title=f"seconds after a trial of {task} was handed out, and MiB that its backbone added;"
        f" medians of {rounds} rounds",
        columns=("trial", "running", "backbone", "images", "first step", "resident", "its part",
                 "private"),
        rows=tuple(rows),
        figures=[{"trial": name, **run} for name, runs in found.items() for run in runs],
    )  # fmt: skip


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


class _Handing(Proposals):
    """Note when each trial is handed out."""

    def suggest(self, trial_id: str) -> Any:  # noqa: ANN401  # Tune's signature
        """Hand out and note."""
        now = time.time()  # the ledger's write is part of handing out
        proposal = super().suggest(trial_id)
        return {**proposal, "handed": now} if isinstance(proposal, dict) else proposal


def _marked_search(bank: Bank, task: str) -> dict[int, dict[str, Any]]:
    """Search as the product does, with marks; four trials of one worker, by number."""
    with patch.multiple(experiment, run_trial=_marked_trial, Proposals=_Handing):
        search(bank, task, at_once(1))
    folder = bank.note(task, "search") / "marks"
    return {int(path.stem): json.loads(path.read_text()) for path in sorted(folder.iterdir())}


def _marked_trial(config: Mapping[str, Any], shared: Mapping[str, Shared]) -> None:
    """Run a trial in a worker, noting when it gets how far."""
    marks = Marks()
    marks.content["handed"] = config["handed"]
    make_backbone, make_data = trial._backbone, trial._data  # noqa: SLF001

    def backbone(task: Shared, device: torch.device) -> TimmViT:
        marks.memory("before")
        made = make_backbone(task, device)
        marks.note("backbone")
        marks.memory("after", made)
        return made

    def data(task: Shared) -> trial.TrialData:
        made = make_data(task)
        marks.note("data")
        return made

    def training(*args: Any, sinks: tuple[Any, ...], **more: Any) -> Any:  # noqa: ANN401
        return train(*args, sinks=(marks, *sinks), **more)

    with patch.multiple(trial, _backbone=backbone, _data=data, train=training):
        try:
            trial.run_trial(config, shared)
        finally:
            folder = Path(shared["task"].brief.storage) / "marks"
            folder.mkdir(exist_ok=True)
            (folder / f"{config['number']}.json").write_text(json.dumps(marks.content))


def _run_alone(
    bank: Bank, task: str, trials: Sequence[Mapping[str, Any]], count: int
) -> list[dict[str, Any]]:
    """Run trials as processes of their own, so many at once; return what they printed."""

    def run(values: Mapping[str, Any]) -> dict[str, Any]:
        handed = time.time()
        words = ["-m", "benchmarks._lone_trial", str(bank.root), task, json.dumps(values)]
        ran = subprocess.run(  # noqa: S603  # our own command line
            [sys.executable, *words], cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True
        )
        return {**json.loads(ran.stdout), "handed": handed}

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, trials))
