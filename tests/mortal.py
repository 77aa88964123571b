"""Killing a program before or after the n-th thing it does to the disk, for every n there is."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

CALLS = ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

Point = Callable[[], None]


def survives(work: Callable[[], object], last: int, calls: tuple[str, ...] = CALLS) -> bool:
    """Run ``work`` in a child that SIGKILL ends once it has passed ``last`` points.

    A point lies before and after each call of one of ``calls`` in :mod:`os`; of ``open`` only
    where it may write, for what reads changes no disk. With ``write`` among them, streams over
    descriptors (``os.fdopen``) have points too: before each write, when half of its bytes are in
    the file, after it, and before and after each flush. Any end but being killed and finishing is
    an error.

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

    def mortal_open(
        real: Callable[..., object], path: object, flags: int, *rest: object, **keys: object
    ) -> object:
        may_write = flags & _WRITES
        return (mortal if may_write else _call)(real, path, flags, *rest, **keys)

    def mortal_stream(
        real: Callable[..., Any], file: int, mode: str = "r", *rest: object, **keys: object
    ) -> object:
        stream = real(file, mode, *rest, **keys)
        return stream if mode.startswith("r") else _MortalStream(stream, point)

    for name in calls:
        wrapper: Callable[..., object] = mortal_open if name == "open" else mortal
        setattr(os, name, partial(wrapper, getattr(os, name)))
    if "write" in calls:
        setattr(os, "fdopen", partial(mortal_stream, os.fdopen))  # noqa: B010  # mypy's types


def _call(real: Callable[..., object], *args: object, **keys: object) -> object:
    return real(*args, **keys)


class _MortalStream:
    """A stream whose bytes go to the file in two halves, so that a kill can leave the first."""

    def __init__(self, stream: Any, point: Point) -> None:  # noqa: ANN401  # as above
        self._stream, self._point = stream, point

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._stream.close()

    def write(self, data: bytes) -> int:
        self._point()
        half = len(data) // 2
        self._stream.write(data[:half])
        self._stream.flush()
        self._point()
        self._stream.write(data[half:])
        self._point()
        return len(data)

    def flush(self) -> None:
        self._point()
        self._stream.flush()
        self._point()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # as above
        return getattr(self._stream, name)
