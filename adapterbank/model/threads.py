"""How many threads compute what is kept: a sum is split among them, so they move its last bits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from adapterbank.errors import InputError


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Compute with this many threads, whatever the machine has and the process may use.

    numpy's linear algebra, of which there is little, runs in one thread.

    Raises:
        InputError: the environment keeps OpenMP from starting as many.
    """
    _refuse_limits(threads)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def _refuse_limits(threads: int) -> None:
    """Refuse variables by which OpenMP silently starts fewer threads than it is asked for."""
    environ = os.environ
    limit = environ.get("OMP_THREAD_LIMIT", "").strip()
    kept = {
        "OMP_DYNAMIC": environ.get("OMP_DYNAMIC", "").strip().lower() in {"true", "1", "yes"},
        "OMP_THREAD_LIMIT": limit.isdecimal() and int(limit) < threads,
        "OMP_MAX_ACTIVE_LEVELS": environ.get("OMP_MAX_ACTIVE_LEVELS", "").strip() == "0",
    }
    for name, keeps in kept.items():
        if keeps and threads > 1:
            raise InputError(
                f"{name}={environ[name]} lets OpenMP start fewer than the {threads} threads of"
                " train.threads, and the same seed would give other bytes",
                fix=f"unset {name}, or set train.threads of the profile to 1",
            )
