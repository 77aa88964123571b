"""Fill a registry with small versions and time what should not depend on how many there are.

    python -m benchmarks.registry [--versions 10000] [--tasks 1000] [--directory DIR]

Registers one version of each task, then a second of each, and so on: the last hundred meet ten
thousand versions of a thousand tasks, each task with nine before them. They are compared, by
medians, with the first hundred of a second, empty registry, which are registered turn by turn with
them: the first hundred proper ran a minute earlier, when the machine was busy with other things.
Reading is timed with everything imported, each figure the median of several rounds. The figures
that count are those of a disk. In memory (``--directory /dev/shm``) nothing is waited for, so the
reading and writing of a task's record, which the first version of a task has none of, shows in the
ratio: that is why the first versions of more tasks in the full registry are timed as well. What
grows with a bank and not with a task, ``verify``, is timed once.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.numpy import save

from adapterbank.records import InputSpec, Traits
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.documents import dump_document
from adapterbank.registry.store import Registry
from adapterbank.registry.summary import list_tasks
from adapterbank.registry.versions import Version
from benchmarks._machine import machine

WIDTH, CLASSES, SAMPLE = 32, 4, 100
BACKBONE = BackboneRecord(
    uri="random://vit_tiny?seed=0",
    arch="vit_tiny",
    spec=InputSpec(size=(32, 32)),
    fingerprint="ab" * 32,
    traits=Traits(
        width=WIDTH, blocks=2, patch=(16, 16), grid=(2, 2), prefix_tokens=1, pool="token",
        parameters=1234,
    ),
)  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.registry",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--directory", type=Path, help="the system's temporary folder by default")
    args = parser.parse_args()
    if args.versions < 2 * SAMPLE or not 1 <= args.tasks <= args.versions:
        parser.error(f"at least {2 * SAMPLE} versions, and not more tasks than versions")
    folder = Path(tempfile.mkdtemp(prefix="registry-", dir=args.directory))
    try:
        table = _measure(folder, args.versions, args.tasks)
    finally:
        shutil.rmtree(folder)
    Console(width=110).print(table)


def _measure(folder: Path, versions: int, tasks: int) -> Table:
    registry, empty = (Registry.open(folder / name, create=True) for name in ("full", "empty"))
    for one in (registry, empty):
        one.set_backbone(BACKBONE)
    peaks_kib = _fill(registry, versions - SAMPLE, tasks)
    peaks_kib.append(_peak_kib())
    first, last, new = _compare(empty, registry, versions - SAMPLE, tasks)
    table = Table(
        "what", "figure", "bar", caption=f"{versions:,} versions of {tasks:,} tasks. {machine()}"
    )
    table.add_row(f"register, median of the first {SAMPLE}", f"{1e3 * first:.2f} ms", "")
    table.add_row(f"register, median of the last {SAMPLE}", f"{1e3 * last:.2f} ms", "")
    table.add_row("last to first", f"{last / first:.2f}", "≤ 1.2")
    table.add_row(f"register, the first of {SAMPLE} more tasks", f"{1e3 * new:.2f} ms", "")
    table.add_row("… to first", f"{new / first:.2f}", "")
    middle, digest = _name(tasks // 2), registry.resolve(f"{_name(tasks // 2)}@1").digest
    reads: dict[str, Callable[[], object]] = {
        "list": lambda: list_tasks(registry),
        "resolve TASK": lambda: registry.resolve(middle),
        "resolve TASK@1": lambda: registry.resolve(f"{middle}@1"),
        "resolve TASK@sha256:…": lambda: registry.resolve(f"{middle}@sha256:{digest[:12]}"),
        "history TASK": lambda: registry.history(middle),
        "promote TASK@1, which it is": lambda: registry.promote(f"{middle}@1", expected=1),
    }
    for name, read in reads.items():
        bar = "< 300 ms" if name.startswith(("list", "resolve")) else ""
        table.add_row(name, f"{1e3 * _median(read):.2f} ms", bar)
    table.add_row("verify, every byte", f"{_median(registry.verify, rounds=1):.2f} s", "")
    start, half, full = (kib / 1024 for kib in peaks_kib)
    read_mib = _peak_kib() / 1024
    table.add_row("memory at its peak, at the start", f"{start:.0f} MiB", "")
    table.add_row("… more after half of the versions", f"{half - start:.1f} MiB", "")
    table.add_row("… more after the other half", f"{full - half:.1f} MiB", "flat")
    table.add_row("… more after reading", f"{read_mib - full:.1f} MiB", "")
    return table


def _compare(empty: Registry, full: Registry, begun: int, tasks: int) -> tuple[float, float, float]:
    """Register the first versions of one registry and the last of another, turn by turn.

    Returns:
        Median seconds of each, and of the first versions of new tasks in the other.
    """
    firsts, lasts, news = [], [], []
    for index in range(SAMPLE):
        firsts.append(_register(empty, index, tasks)[1])
        lasts.append(_register(full, begun + index, tasks)[1])
        news.append(_register(full, tasks + index, tasks + SAMPLE)[1])
    return statistics.median(firsts), statistics.median(lasts), statistics.median(news)


def _register(registry: Registry, index: int, tasks: int) -> tuple[Version, float]:
    task = _name(index % tasks)
    files = _files(task, index)
    begun = time.perf_counter()
    version = registry.register(task, files, reason="benchmark")
    return version, time.perf_counter() - begun


def _fill(registry: Registry, versions: int, tasks: int) -> list[int]:
    """Register versions, task by task in turn, and promote the first of each.

    Returns:
        The peak of memory in KiB, at the start and at half.
    """
    peaks_kib = []
    for index in track(range(versions), description="registering", transient=True):
        if index in {SAMPLE // 2, versions // 2}:  # the first ones import and compile
            peaks_kib.append(_peak_kib())
        version, _ = _register(registry, index, tasks)
        if version.version == 1:
            registry.promote(str(version), expected=None)
    return peaks_kib


def _name(index: int) -> str:
    return f"task{index:05}"


def _files(task: str, seed: int) -> dict[str, bytes]:
    generator = np.random.default_rng(seed)
    config = {
        "schema": 1,
        "task": task,
        "method": {"name": "vapt", "hyper": {"prompts": 10, "rank": 8}},
        "classes": [f"class {index}" for index in range(CLASSES)],
        "input": {
            "size": list(BACKBONE.spec.size), "mean": list(BACKBONE.spec.mean),
            "std": list(BACKBONE.spec.std), "interpolation": BACKBONE.spec.interpolation,
        },
        "backbone": {"uri": BACKBONE.uri, "fingerprint": BACKBONE.fingerprint},
        "parents": [],
        "data": {"source": f"embedded://{task}", "digest": "cd" * 32},
        "train": {"epochs": 8, "lr": 0.002},
        "seed": seed,
        "libraries": {"torch": "2.9"},
    }  # fmt: skip
    tensors = {
        "head.weight": generator.standard_normal((CLASSES, WIDTH), dtype=np.float32),
        "head.bias": np.zeros(CLASSES, dtype=np.float32),
    }
    return {
        "adapter_config.json": dump_document(config),
        "adapter_model.safetensors": save(tensors),
        "canary.safetensors": save({"logits": np.zeros((2, CLASSES), dtype=np.float32)}),
        "metrics.json": b'{"test": {"correct": 3, "total": 4}}',
        "README.md": f"# {task}\n".encode(),
    }


def _median(step: Callable[[], object], rounds: int = 9) -> float:
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
