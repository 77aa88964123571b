"""A Ray of one's own on this machine, or a cluster that is there already."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
import torch

from adapterbank.errors import AdapterBankError, InputError
from adapterbank.spaces import SearchConfig

__all__ = ["connected", "hushed", "per_trial", "scratch"]

_ADDRESS = "RAY_ADDRESS"


@contextmanager
def connected(address: str | None) -> Iterator[dict[str, float]]:
    """Connect to a cluster, or start one of this machine's for the block.

    Args:
        address: of a cluster (``host:port``, ``auto`` for the one this machine belongs to); by
            default that of ``RAY_ADDRESS``, which Ray sets in the jobs it runs.

    Yields:
        What the cluster has: ``CPU``, ``GPU``…

    Raises:
        AdapterBankError: no cluster answers there.
    """
    if ray.is_initialized():  # the caller's own
        yield ray.cluster_resources()
        return
    there = address or os.environ.get(_ADDRESS)
    gpus = torch.cuda.device_count()
    try:
        with hushed():
            if there:
                ray.init(address=there, logging_level=logging.ERROR, log_to_driver=False)
            else:
                ray.init(
                    num_cpus=os.cpu_count(),
                    num_gpus=gpus,
                    include_dashboard=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = there or "on this machine"
        raise AdapterBankError(
            f"no Ray cluster answers at {where}: {error}"
            if there
            else f"Ray did not start: {error}",
            fix="ray start --head, or leave --address out",
        ) from error
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def per_trial(config: SearchConfig, cluster: dict[str, float]) -> dict[str, float]:
    """Resources of one trial; a GPU each where the cluster has any and nothing else is said.

    Raises:
        InputError: a trial asks for more than any node could give.
    """
    cpus, gpus = cluster.get("CPU", 0.0), cluster.get("GPU", 0.0)
    wanted = config.gpus_per_trial
    asked = {"CPU": config.cpus_per_trial, "GPU": min(1.0, gpus) if wanted is None else wanted}
    widest = {
        kind: max((node["Resources"].get(kind, 0.0) for node in _alive()), default=0.0)
        for kind in asked
    }
    for kind, option in (("CPU", "--cpus-per-trial"), ("GPU", "--gpus-per-trial")):
        if asked[kind] > widest[kind]:
            total = cpus if kind == "CPU" else gpus
            raise InputError(
                f"a trial asks for {asked[kind]:g} {kind}s; the largest node has"
                f" {widest[kind]:g}, the whole cluster {total:g}",
                fix=f"lower {option}",
            )
    return {kind.lower(): amount for kind, amount in asked.items() if amount}


@contextmanager
def hushed() -> Iterator[None]:
    """Keep what Ray prints for people who drive it by hand out of our output."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for what Tune writes on the driver; nothing in it is needed afterwards."""
    with tempfile.TemporaryDirectory(prefix="adapterbank-tune-") as folder:
        yield Path(folder)


def _alive() -> list[dict[str, dict[str, float]]]:
    return [node for node in ray.nodes() if node["Alive"]]
