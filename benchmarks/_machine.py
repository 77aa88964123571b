"""What every benchmark shares: one line about the machine, and interleaved medians."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from adapterbank.cores import usable_cores


def machine() -> str:
    """Processor, cores, threads and versions that a figure depends on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [ln for ln in cpuinfo.read_text().splitlines() if ln.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{name}, {usable_cores()} cores, {torch.get_num_threads()} torch threads, {device},"
        f" torch {torch.__version__}, Python {platform.python_version()}"
    )


def interleaved_medians(
    steps: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2
) -> dict[str, float]:
    """Time functions turn by turn, so that a noisy neighbour slows all of them alike.

    Returns:
        Median seconds of each.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(warm_up + rounds):
        for name, step in steps.items():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            begun = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if index >= warm_up:
                times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in times.items()}
