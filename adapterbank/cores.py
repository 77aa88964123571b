"""How many processor cores this process may use: for threads, trials and what Ray is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_PROC: Final = Path("/proc/self/cgroup")
_MOUNT: Final = Path("/sys/fs/cgroup")


def usable_cores(proc: Path = _PROC, mount: Path = _MOUNT) -> int:
    """Return how many cores this process may use, at least 1; the machine may have more.

    Args:
        proc: where Linux says which control groups the process is in.
        mount: where the control groups are.

    Returns:
        the least of what its affinity (``taskset``, SLURM) and the quotas of its control groups
        (containers, ``systemd``) allow; of a quota, the whole cores.
    """
    quotas = (quota for group in _groups(proc, mount) if (quota := _quota(group)) is not None)
    return max(1, min([allowed_cores(), *quotas]))


def allowed_cores() -> int:
    """Return how many cores this process may run on; it may have a quota of their time as well."""
    if hasattr(os, "process_cpu_count"):  # since Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _groups(proc: Path, mount: Path) -> Iterator[Path]:
    """Yield the folders of a process's control groups of cores, and of all around them."""
    for line in _read(proc).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2 has one tree for all
            trees = [mount, mount / "unified"]
        elif "cpu" in controllers.split(","):
            trees = [mount / controllers, mount / "cpu"]
        else:
            continue
        names = PurePosixPath(path).parts[1:]
        for tree in trees:
            # In a container the path may be the host's: then only the top is to be seen.
            yield from (tree.joinpath(*names[:depth]) for depth in range(len(names) + 1))


def _quota(group: Path) -> int | None:
    """Return the whole cores of a group's quota; None where it has none."""
    words = _read(group / "cpu.max").split() or [
        _read(group / f"cpu.cfs_{word}_us").strip() for word in ("quota", "period")
    ]
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None  # `max`, or -1
    return int(words[0]) // max(1, int(words[1]))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
