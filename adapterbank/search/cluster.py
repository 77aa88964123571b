"""A Ray of one's own on this machine, or a cluster that is there already."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import secrets
import signal
import socket
import tempfile
import textwrap
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import AuthenticationError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from adapterbank.config.search import SearchConfig
from adapterbank.cores import usable_cores
from adapterbank.errors import AdapterBankError, InputError

_ADDRESS = "RAY_ADDRESS"
# A socket's path has 107 bytes: this and /ray/session_<date>_<pid>/sockets/plasma_store.1
_LONGEST = 32
_PLACES = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  # made private there
_KNOCK_S = 20.0
_PATIENCE_S = 60.0  # for a node whose GPUs are all at work; it is believed then
_REASON = 240  # characters
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RAISED = re.compile(r"((?:\w+\.)*)(\w+): (.*)")  # the line of a traceback that has the exception
_MODE, _TOKEN, _TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


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
    with ExitStack() as block:
        if not there:
            block.enter_context(_locked())
        _start(there, None if there else block.enter_context(_short_folder()))
        try:
            yield ray.cluster_resources()
        finally:
            ray.shutdown()


def plain_reason(text: str) -> str:
    """Find the reason in what Ray says of a failure, without the pages that it puts around it."""
    _, head, last = text.rpartition("Failure # ")  # Tune's file has all attempts of a trial
    text = last.partition("\n")[2] if head else text
    lines = _COLOUR.sub("", text).splitlines()
    raised = [match for line in lines if (match := _RAISED.match(line))]
    if raised and '  File "' in text:  # a stack
        module, name, message = raised[-1].groups()
        return message if module == "adapterbank.errors." else f"{name}: {message}"
    low = "low on memory" in text
    if not text or low or "died" in text:
        memory = ": its node ran out of memory" if low else ""
        return f"its worker was lost{memory}"
    return textwrap.shorten(text, _REASON, placeholder="…")


def _start(there: str | None, folder: str | None) -> None:
    if there:
        _knock(there)
    try:
        with hushed(), _own_signals():
            if there:
                ray.init(address=there, logging_level=logging.ERROR, log_to_driver=False)
            else:
                ray.init(
                    num_cpus=usable_cores(),
                    num_gpus=torch.cuda.device_count(),
                    include_dashboard=False,
                    _temp_dir=folder,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
    except (
        AuthenticationError, OSError, RuntimeError, ValueError
    ) as error:  # fmt: skip
        # Ray has the reason in the text of the reason only.
        if "AuthenticationError" in f"{error!r} {error.__cause__!r}":
            raise AdapterBankError(
                f"the Ray cluster at {there or 'this machine'} does not let us in: its token is not"
                " ours",
                fix=f"set {_MODE}=token and {_TOKEN} or {_TOKEN_PATH} as on its nodes",
            ) from error
        raise _unanswered(there, str(error)) from error


def _knock(there: str) -> None:
    """Find out whether anything listens at an address, which takes Ray minutes.

    Raises:
        AdapterBankError: nothing does.
    """
    host, _, port = there.rpartition(":")
    if not port.isdigit() or "/" in host:  # `auto`, or a client's address, of which Ray knows more
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _unanswered(there, reason) from error


def _unanswered(there: str | None, reason: str) -> AdapterBankError:
    if there:
        return AdapterBankError(
            f"no Ray cluster answers at {there}: {plain_reason(reason)}",
            fix="ray start --head there, or leave --address out",
        )
    return AdapterBankError(
        f"Ray did not start on this machine: {plain_reason(reason)}",
        fix="free memory and space in /tmp, then run it again; or name a cluster with --address",
    )


@contextmanager
def _short_folder() -> Iterator[str | None]:
    """Have a folder for Ray whose path leaves room for the names of its sockets.

    Yields:
        None where Ray's own choice will do; else one that is deleted after the block.

    Raises:
        AdapterBankError: there is none.
    """
    usual = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")  # noqa: S108
    short = len(os.fsencode(usual)) <= _LONGEST
    if short and usual.is_absolute() and os.access(usual, os.W_OK | os.X_OK):
        yield None
        return
    for place in _PLACES:
        with contextlib.suppress(OSError):
            folder = tempfile.TemporaryDirectory(
                prefix="ray-", dir=place, ignore_cleanup_errors=True
            )
            break
    else:
        raise AdapterBankError(
            f"Ray needs a folder that can be written, with a path of at most {_LONGEST} bytes:"
            f" neither {usual} is one, nor {', '.join(_PLACES)}",
            fix="set RAY_TMPDIR to such a folder, then repeat the command",
        )
    with folder as name:
        yield name


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this program's answer to SIGTERM, which Ray puts its own in place of."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _locked() -> Iterator[None]:
    """Let nobody but our own processes into the Ray that is started in this block.

    Ray listens on all interfaces, whatever address it is told, and runs any code it is sent. So it
    gets a token that only this process and its children know, unless the user has chosen how Ray
    is to be guarded. Ray would make one too, and write it into the home folder.
    """
    if any(name in os.environ for name in (_MODE, _TOKEN, _TOKEN_PATH)):
        yield
        return
    os.environ[_TOKEN] = _own_token()
    try:
        yield
    finally:
        for name in (_MODE, _TOKEN):  # the mode was set by Ray, which follows the token
            os.environ.pop(name, None)


@cache  # Ray reads a process's token once
def _own_token() -> str:
    return secrets.token_hex(32)


def per_trial(config: SearchConfig, cluster: dict[str, float], threads: int) -> dict[str, float]:
    """Resources of one trial; a GPU each where the cluster has any and nothing else is said.

    Args:
        config: what is said.
        cluster: its resources.
        threads: that a trial on processors computes with, on fewer where no node has as many.

    Raises:
        InputError: a trial asks for more than any node could give.
    """
    cpus, gpus = cluster.get("CPU", 0.0), cluster.get("GPU", 0.0)
    wanted = config.gpus_per_trial
    widest = {
        kind: max((node["Resources"].get(kind, 0.0) for node in _alive()), default=0.0)
        for kind in ("CPU", "GPU")
    }
    asked = {"GPU": min(1.0, gpus) if wanted is None else wanted}
    own = 1.0 if asked["GPU"] else max(1.0, min(threads, widest["CPU"]))
    asked["CPU"] = own if config.cpus_per_trial is None else config.cpus_per_trial
    for kind, option in (("CPU", "--cpus-per-trial"), ("GPU", "--gpus-per-trial")):
        if asked[kind] > widest[kind]:
            total = cpus if kind == "CPU" else gpus
            raise InputError(
                f"a trial asks for {asked[kind]:g} {kind}s; the largest node has"
                f" {widest[kind]:g}, the whole cluster {total:g}",
                fix=f"lower {option}",
            )
    return {kind.lower(): amount for kind, amount in asked.items() if amount}


def check_gpus(resources: Mapping[str, float]) -> None:
    """Refuse a cluster with GPUs that PyTorch cannot use, where trials are to have some.

    Args:
        resources: of one trial, see :func:`per_trial`.

    Raises:
        InputError: the nodes, by name.
    """
    if not resources.get("gpu"):
        return
    here = ray.get_runtime_context().get_node_id()
    asked = {
        _sees_gpu.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(): f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        for node in _alive()
        if node["Resources"].get("GPU") and not (
            node["NodeID"] == here and torch.cuda.is_available())
    }  # fmt: skip
    if not asked:
        return
    answers, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_PATIENCE_S)
    blind = sorted({asked[answer] for answer in answers if not ray.get(answer)})
    if blind:
        raise InputError(
            f"PyTorch sees no GPU on {', '.join(blind)}, where Ray was told of one",
            fix="install a PyTorch with CUDA there, or --gpus-per-trial 0",
        )


@ray.remote(num_cpus=0, num_gpus=1e-3, max_retries=0)
def _sees_gpu() -> bool:
    return torch.cuda.is_available()


@contextmanager
def hushed() -> Iterator[None]:
    """Keep what Ray prints for people who drive it by hand out of our output."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # errors too: they reach us as exceptions
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
