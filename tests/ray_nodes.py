"""Nodes of a Ray cluster on this machine, each a child that can be killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

RAY = (sys.executable, "-c", "from ray.scripts.scripts import main; main()")
"""Ray's own program, wherever it is installed."""

_NOWHERE = "http://127.0.0.1:1"
_START_S = 180.0
_POLL_S = 0.05
_GUARD = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of-the-tests-" + "0" * 32}


class Cluster:
    """A head and any number of workers.

    Attributes:
        address: where the head answers.
        environment: what a process needs to be let in.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.environment: Mapping[str, str] = {**_GUARD, "RAY_USAGE_STATS_ENABLED": "0"}
        self._port = port
        self.nodes: list[Node] = []

    def head(self, *options: str) -> Node:
        """Start the node that the others join."""
        node = self._start("--head", f"--port={self._port}", *options)
        wait_until(lambda: answers(self._port), "the head answers", node)
        return node

    def join(self, *options: str) -> Node:
        """Start one more node."""
        return self._start(f"--address={self.address}", *options)

    def stop(self) -> None:
        """Kill every node that is left, workers first."""
        for node in reversed(self.nodes):
            node.kill()

    def _start(self, *options: str) -> Node:
        node = Node(
            ["start", *options, "--block", f"--temp-dir={self._folder}", "--disable-usage-stats"],
            # A worker that talks to MLflow, which is the driver's to do, fails.
            {**self.environment, "MLFLOW_TRACKING_URI": _NOWHERE},
            self._folder / f"node{len(self.nodes)}.log",
        )
        self.nodes.append(node)
        return node


class Node:
    """One ``ray start --block`` and the processes below it."""

    def __init__(self, words: list[str], environment: Mapping[str, str], log: Path) -> None:
        with log.open("wb") as out:
            self._child = subprocess.Popen(
                [*RAY, *words],
                env=os.environ | dict(environment),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.log = log

    @property
    def alive(self) -> bool:
        """Whether the node has not ended."""
        return self._child.poll() is None

    def raylet(self) -> psutil.Process | None:
        """The process that Ray knows as the node; None before it is there."""
        return next((one for one in self._below() if one.name() == "raylet"), None)

    def trials(self) -> set[int]:
        """Process ids of the workers that run trials here."""
        found = set()
        for one in self._below():
            try:
                words = " ".join(one.cmdline())
            except psutil.Error:
                continue
            if words.startswith("ray::ImplicitFunc"):
                found.add(one.pid)
        return found

    def kill(self) -> None:
        """SIGKILL the raylet, then whatever else there is of the node."""
        below = self._below()
        raylet = next((one for one in below if one.name() == "raylet"), None)
        for one in ([raylet] if raylet else []) + below:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        if self.alive:
            os.kill(self._child.pid, signal.SIGKILL)
        self._child.wait()
        psutil.wait_procs(below, timeout=10)

    def _below(self) -> list[psutil.Process]:
        try:
            found: list[psutil.Process] = psutil.Process(self._child.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return found


def suspend(workers: set[int]) -> None:
    """Hold processes where they are: whatever is next takes its time on a busy machine."""
    for pid in workers:
        psutil.Process(pid).suspend()


def resume(workers: set[int]) -> None:
    """Let them go on, those that are still there."""
    for pid in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).resume()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Return a cluster without nodes; those it is given are killed at the end."""
    # Not pytest's folder: the path of a Unix socket has 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    made = Cluster(folder)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return a port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until(
    true: Callable[[], bool], what: str, node: Node | None = None, *, poll_s: float = _POLL_S
) -> None:
    """Wait for something to become true, and say what did not."""
    end = time.monotonic() + _START_S
    while not true():
        assert node is None or node.alive, (what, node.log.read_text()[-2000:])
        assert time.monotonic() < end, what
        time.sleep(poll_s)
