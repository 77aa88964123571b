"""Interrupts that cannot get lost on their way through somebody else's code."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """Hold SIGINT and SIGTERM back until somebody asks.

    Python prints and forgets an exception that a signal raises inside a destructor or a callback
    from C, and Ray has many of both: a search would go on as if nobody had pressed a key.
    """

    def __init__(self) -> None:
        self._pending: Callable[[], Any] | None = None

    def check(self) -> None:
        """Answer a signal that was held back, as it would have been: with an exception."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold signals back in this block, whose code checks often; a second one gets through."""
        if threading.current_thread() is not threading.main_thread():  # signals are not for us
            yield
            return
        answers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for number, answer in answers.items():
                if callable(answer):
                    signal.signal(number, self._holding(answer))
            yield
        finally:
            for number, answer in answers.items():
                signal.signal(number, answer)
        self.check()

    def _holding(self, answer: Callable[[int, FrameType | None], Any]) -> Callable[..., None]:
        def handle(number: int, frame: FrameType | None) -> None:
            if self._pending is not None:
                answer(number, frame)
            self._pending = lambda: answer(number, None)

        return handle
