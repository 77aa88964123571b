"""Killing a program before or after the n-th thing it does to the disk, for every n there is."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from functools import partial

__all__ = ["survives"]

CALLS = ("open", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir")


def survives(work: Callable[[], object], last: int, calls: tuple[str, ...] = CALLS) -> bool:
    """Run ``work`` in a child that SIGKILL ends once it has passed ``last`` points.

    A point lies before and after each call of one of ``calls`` in :mod:`os`. Any end but being
    killed and finishing is an error.

    Returns:
        Whether it finished, having met no more than ``last`` points.
    """
    child = os.fork()
    if child == 0:
        try:
            _die_after(last, calls)
            work()
        except BaseException:  # noqa: BLE001  # the child must end here, whatever happens
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, -signal.SIGKILL}, (last, code)
    return code == 0


def _die_after(last: int, calls: tuple[str, ...]) -> None:
    passed = 0

    def point() -> None:
        nonlocal passed
        passed += 1
        if passed > last:
            os.kill(os.getpid(), signal.SIGKILL)

    def mortal(real: Callable[..., object], *args: object, **keys: object) -> object:
        point()
        result = real(*args, **keys)
        point()
        return result

    for name in calls:
        setattr(os, name, partial(mortal, getattr(os, name)))
