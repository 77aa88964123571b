"""Batches of many tasks against a batch of one, and what a bank in memory costs.

    python -m benchmarks.mixed [--arch ARCH] [--size 84] [--batch 64] [--rounds 9]
    python -m benchmarks.mixed --memory [--residents 1000]

The first compares forwards of one batch whose rows belong to 1, 4, 16… adapters:

* *mixed*: one forward for all of them (:func:`adapterbank.model.mixed.forward_mixed`);
* *one by one*: the rows of each adapter in a forward of their own;
* *PEFT*: its LoRA, ``adapter_names`` for each row, on the same timm ViT, if it is installed.

Each figure is a throughput relative to the same library's batch of one task; for unequal adapters
that is the mean of a batch of each. One process, turn by turn, medians of processor time, which
others on the machine disturb least (``--wall``: of elapsed time).

The second fills a predictor's memory and measures bytes for each adapter, eviction and the swap of
one version for another.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from adapterbank.backbones.base import slices
from adapterbank.backbones.timm_vit import TimmViT, build_vit, initial_state
from adapterbank.inference.artifact import (
    LoadedAdapter,
    build_adapter,
    load_adapter,
    pack_adapter,
)
from adapterbank.inference.residents import Residents
from adapterbank.methods.base import Folded
from adapterbank.model.forward import forward
from adapterbank.model.mixed import forward_mixed
from adapterbank.records import InputSpec
from adapterbank.registry.adapter_config import AdapterConfig, parse_adapter_config
from adapterbank.registry.documents import dump_document
from benchmarks._machine import machine

Hyper = tuple[str, dict[str, Any], int]  # method, hyper-parameters, classes
ALIKE: tuple[Hyper, ...] = (("vapt", {}, 10),)
UNALIKE: tuple[Hyper, ...] = (
    ("vapt", {"prompts": 5, "rank": 4}, 10),
    ("vapt", {"prompts": 10, "rank": 16, "kernel": 3}, 47),
    ("vapt", {"prompts": 20, "base_prompts": False}, 2),
    ("vapt", {"prompts": 50, "rank": 32}, 100),
    ("vpt_deep", {"prompts": 10}, 20),
    ("vpt_shallow", {"prompts": 10}, 37),
    ("linear", {}, 5),
    ("vapt", {"prompts": 10, "projector": "none"}, 10),
)
LORA_RANK = 8
FINGERPRINT = "ab" * 32


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all measurements share."""

    backbone: TimmViT
    images: Tensor
    rounds: int
    clock: Callable[[], float]

    def medians(self, steps: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """Median seconds of each, turn by turn, after one turn that does not count."""
        times: dict[str, list[float]] = {name: [] for name in steps}
        for index in range(self.rounds + 1):
            for name, step in steps.items():
                begun = self.clock()
                step()
                if index:
                    times[name].append(self.clock() - begun)
        return {name: statistics.median(values) for name, values in times.items()}


def adapters(backbone: TimmViT, kinds: Sequence[Hyper], count: int) -> list[Folded]:
    """Fold adapters of the kinds by turns, all different, none trained."""
    made = []
    for seed, (method, hyper, classes) in enumerate(islice(cycle(kinds), count)):
        adapter = build_adapter(
            method, hyper, backbone.traits, classes, seed=seed, where="a benchmark"
        )
        made.append(adapter.requires_grad_(requires_grad=False).fold())
    return made


def of_one(bench: Bench, images: Tensor, folded: Folded) -> None:
    """Run a batch of one adapter, in parts as large as run fastest."""
    for part in slices(bench.backbone, len(images)):
        forward(bench.backbone, images[part], folded)


def one_by_one(bench: Bench, rows: Sequence[Folded]) -> None:
    """Run a forward for each adapter's rows."""
    groups: dict[int, list[int]] = {}
    for index, folded in enumerate(rows):
        groups.setdefault(id(folded), []).append(index)
    for mine in groups.values():
        of_one(bench, bench.images[mine], rows[mine[0]])


def compare(bench: Bench, kinds: Sequence[Hyper], tasks: Iterable[int]) -> list[tuple[str, ...]]:
    """Rows of the table: tasks, throughput of mixed and of one by one, largest difference."""
    batch = len(bench.images)
    table: list[tuple[str, ...]] = []
    for count in tasks:
        members = adapters(bench.backbone, kinds, count)
        rows = list(islice(cycle(members), batch))
        alone = adapters(bench.backbone, kinds, len(kinds))
        steps: dict[str, Callable[[], object]] = {
            "mixed": partial(forward_mixed, bench.backbone, bench.images, rows),
            "one by one": partial(one_by_one, bench, rows),
        }
        for index, folded in enumerate(alone[:count]):
            steps[f"one task {index}"] = partial(of_one, bench, bench.images, folded)
        seconds = bench.medians(steps)
        one = statistics.fmean(value for name, value in seconds.items() if "one task" in name)
        table.append(
            (
                str(count),
                f"{batch / one:.1f}",
                f"[bold]{one / seconds['mixed']:.3f}[/]",
                f"{one / seconds['one by one']:.3f}",
                f"{difference(bench, rows):.1e}",
            )
        )
    return table


def difference(bench: Bench, rows: Sequence[Folded]) -> float:
    """Largest difference of a probability from the row's single-task answer."""
    logits, counts = forward_mixed(bench.backbone, bench.images, rows)
    mixed = logits.softmax(dim=1)
    worst = 0.0
    for index, count in enumerate(counts.tolist()):
        image = bench.images[index : index + 1]
        alone = forward(bench.backbone, image, rows[index]).softmax(dim=1)[0]
        worst = max(worst, float((mixed[index, :count] - alone).abs().max()))
    return worst


def peft_version() -> str | None:
    """Version of PEFT, or None where it is not installed: it is no dependency of this project."""
    if importlib.util.find_spec("peft") is None:
        return None
    return importlib.metadata.version("peft")


def compare_peft(bench: Bench, tasks: Sequence[int]) -> list[tuple[str, str]]:
    """Tasks and relative throughput of PEFT's own mixed batches of LoRA."""
    peft = importlib.import_module("peft")
    settings = {"r": LORA_RANK, "target_modules": ["qkv", "proj"], "init_lora_weights": False}
    wrapped: Any = None
    for index in range(max(tasks)):
        config = peft.LoraConfig(**settings)
        if wrapped is None:
            wrapped = peft.PeftModel(bench.backbone.vit, config, adapter_name="0")
        else:
            wrapped.add_adapter(str(index), config)
    wrapped.eval()

    def names(count: int) -> list[str]:
        return [str(i % count) for i in range(len(bench.images))]

    steps = {
        str(count): partial(wrapped, bench.images, adapter_names=names(count)) for count in tasks
    }
    seconds = bench.medians({"one": partial(wrapped, bench.images), **steps})
    return [(name, f"{seconds['one'] / seconds[name]:.3f}") for name in steps]


def resident_mib() -> float:
    """Memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def fill(backbone: TimmViT, count: int, swaps: int = 200) -> Table:
    """Keep adapters in memory, then more than the budget allows, and swap."""
    config = described(backbone)

    def make(seed: int) -> LoadedAdapter:
        method, hyper, classes = ALIKE[0]
        adapter = build_adapter(method, hyper, backbone.traits, classes, seed=seed, where="here")
        folded = adapter.requires_grad_(requires_grad=False).fold()
        return LoadedAdapter(folded=folded, config=config, digest="", parameters=(0, 0))

    each = make(0).folded.nbytes
    before = resident_mib()
    residents = Residents(budget_bytes=count * each)
    for seed in range(count):
        with residents.reading(str(seed), partial(make, seed)):
            pass
    full, grown = residents.residency(), resident_mib() - before
    in_memory, from_bytes = [], []
    method, hyper, classes = ALIKE[0]
    files = {
        "adapter_config.json": dump_document(json.loads(json.dumps(asdict(config)))),
        "adapter_model.safetensors": pack_adapter(
            build_adapter(method, hyper, backbone.traits, classes, seed=1, where="here")
        ),
    }
    load = partial(load_adapter, files, backbone, where="here")
    for seed in range(count, count + swaps):  # each makes the least recently used one go
        ready = make(seed)
        in_memory.append(swap(residents, f"{seed} ready", partial(ready_made, ready)))
        from_bytes.append(swap(residents, f"{seed} bytes", load))
    after = residents.residency()
    table = Table("what", "figure", title=f"{count:,} adapters in memory", caption=machine())
    for what, figure in (
        ("bytes for each", f"{each:,}"),
        ("budget", f"{count * each / 2**20:.1f} MiB"),
        ("versions in memory", f"{full.versions:,}"),
        ("their tensors", f"{full.nbytes / 2**20:.1f} MiB"),
        ("growth of the process", f"{grown:.1f} MiB"),
        (f"after {2 * swaps} more", f"{after.versions:,} in memory, {after.evictions} evicted"),
        ("swap, folded already", f"{1e3 * statistics.median(in_memory):.3f} ms, median"),
        ("swap, from bytes, folded now", f"{1e3 * statistics.median(from_bytes):.2f} ms, median"),
    ):
        table.add_row(what, figure)
    return table


def ready_made(loaded: LoadedAdapter) -> LoadedAdapter:
    """Return it: what loading is where nothing is left to do."""
    return loaded


def swap(residents: Residents, digest: str, load: Callable[[], LoadedAdapter]) -> float:
    """Seconds until a version that is not in memory can be read, and another one is gone."""
    begun = time.perf_counter()
    with residents.reading(digest, load):
        return time.perf_counter() - begun


def described(backbone: TimmViT) -> AdapterConfig:
    """Make a configuration, as every version in memory carries one."""
    return parse_adapter_config(
        json.dumps(
            {
                "schema": 1,
                "task": "a-task",
                "method": {"name": "vapt", "hyper": {}},
                "classes": [f"class {i}" for i in range(ALIKE[0][2])],
                "input": {
                    "size": list(backbone.spec.size),
                    "mean": [0.5] * 3,
                    "std": [0.5] * 3,
                    "interpolation": "bicubic",
                },
                "backbone": {"uri": "random://x", "fingerprint": FINGERPRINT},
                "parents": [],
                "data": {"source": "a benchmark", "digest": "cd" * 32},
                "train": {},
                "seed": 0,
                "libraries": {},
            }
        ).encode()
    )


@torch.inference_mode()
def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mixed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arch", default="vit_small_patch14_dinov2")
    parser.add_argument("--size", type=int, default=84)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--wall", action="store_true", help="elapsed, not processor time")
    parser.add_argument("--memory", action="store_true", help="only what a bank in memory costs")
    parser.add_argument("--residents", type=int, default=1000)
    args = parser.parse_args()
    spec = InputSpec(size=(args.size, args.size))
    backbone = build_vit(args.arch, {}, initial_state(args.arch, {}, seed=0), spec, FINGERPRINT)
    console = Console(width=120)
    if args.memory:
        console.print(fill(backbone, args.residents))
        return
    images = torch.randn(args.batch, 3, *spec.size, generator=torch.Generator().manual_seed(0))
    clock = time.perf_counter if args.wall else time.process_time
    bench = Bench(backbone=backbone, images=images, rounds=args.rounds, clock=clock)
    for title, kinds in (
        ("equal VAPT adapters", ALIKE),
        ("N, R, K, C and methods differ", UNALIKE),
    ):
        table = Table(
            "tasks", "images/s of one task", "mixed", "one by one", "largest difference",
            title=f"{title}: throughput relative to one task, {args.arch}, {args.size} px, batch"
            f" {args.batch}, medians of {args.rounds}", caption=machine(),
        )  # fmt: skip
        for row in compare(bench, kinds, args.tasks):
            table.add_row(*row)
        console.print(table)
    version = peft_version()
    if version is None:
        console.print("PEFT's mixed batches: peft not installed")
        return
    table = Table("tasks", "relative", title=f"PEFT {version}, LoRA of rank {LORA_RANK}")
    for tasks, ratio in compare_peft(bench, args.tasks):
        table.add_row(tasks, ratio)
    console.print(table)


if __name__ == "__main__":
    main()
