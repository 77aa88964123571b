"""How far work has come and how long it will take, on standard error.

A terminal shows a bar that goes away when the work is done; a log gets a plain line every few
seconds. Work of under two seconds shows nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from adapterbank.cli import render
from adapterbank.text import human_seconds

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from adapterbank.training.sinks import Epoch

SHOW_AFTER_S = 2.0
LOG_EVERY_S = 5.0
EPOCH_EVERY_S = 1.0


class _Display(Protocol):
    def update(self, label: str, done: int, total: int) -> None: ...

    def say(self, text: str) -> None: ...

    def close(self) -> None: ...


class Bar:
    """A progress callback: called with (done, total), any number of rounds one after the other.

    Args:
        label: what is being done.
        quiet: show nothing in a log; a terminal shows its bar all the same.
        clock: tells seconds.
    """

    def __init__(
        self, label: str, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.label = label
        self._quiet = quiet
        self._clock = clock
        self._begun: float | None = None
        self._display: _Display | None = None

    def __call__(self, done: int, total: int) -> None:
        """Note that ``done`` of ``total`` are done."""
        now = self._clock()
        self._begun = now if self._begun is None else self._begun
        if self._display is None and now - self._begun >= SHOW_AFTER_S:
            self._display = self._open()
        if self._display is not None:
            self._display.update(self.label, done, total)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._display is not None:
            self._display.say(text)
        elif not self._quiet:
            render.note(text)

    def close(self) -> None:
        """Take the bar away."""
        if self._display is not None:
            self._display.close()
            self._display = None

    def _open(self) -> _Display | None:
        if sys.stderr.isatty():
            return _Live()
        return None if self._quiet else _Log(self._clock)


@contextmanager
def bar(label: str, *, quiet: bool = False) -> Iterator[Bar]:
    """Show the progress of what runs in the block."""
    shown = Bar(label, quiet=quiet)
    try:
        yield shown
    finally:
        shown.close()


@contextmanager
def spinner(label: str, *, quiet: bool = False) -> Iterator[None]:
    """Show that something runs in the block whose length nobody knows."""
    if not sys.stderr.isatty():
        if not quiet:
            render.note(f"{label}…")
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{label}…"):
        yield


class TrainingView:
    """A training sink: a bar with loss, validation accuracy and time left; lines for epochs.

    Args:
        label: what is being trained.
        epochs: how many there will be.
        val: what the validation images are to this training.
        quiet: see :class:`Bar`.
        clock: tells seconds.
    """

    def __init__(
        self,
        label: str,
        epochs: int,
        *,
        val: str = "val",
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bar = Bar(label, quiet=quiet, clock=clock)
        self._clock = clock
        self._said = float("-inf")
        self._label = label
        self._epochs = epochs
        self._val = val
        self.on_start: Callable[[], None] | None = None  # called once, before the first step

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def step(self, done: int, total: int) -> None:
        """Move the bar."""
        if self.on_start is not None:
            self.on_start()
            self.on_start = None
        self._bar(done, total)

    def epoch(self, epoch: Epoch) -> None:
        """Print the figures, where the last ones are a second old, and keep them by the bar."""
        figures = (
            f"loss {epoch.loss:.4f}  train {epoch.train.accuracy:.1%}"
            f"  {self._val} {epoch.val.accuracy:.1%}"
        )
        self._bar.label = (
            f"{self._label}  loss {epoch.loss:.3f}  {self._val} {epoch.val.accuracy:.1%}"
        )
        now = self._clock()
        if now - self._said < EPOCH_EVERY_S and epoch.number < self._epochs:
            return
        self._said = now
        width = len(str(self._epochs))
        self._bar.say(
            f"epoch {epoch.number:>{width}}/{self._epochs}  {figures}"
            f"  {human_seconds(epoch.seconds)}"
        )


class _Live:
    """A bar in a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress: RichProgress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=Console(stderr=True),
            transient=True,
        )
        self._progress.start()
        self._task = self._progress.add_task("", total=None)
        self._last = 0

    def update(self, label: str, done: int, total: int) -> None:
        """Move the bar; going backwards starts a new round with its own time."""
        if done < self._last:
            self._progress.reset(self._task)
        self._last = done
        self._progress.update(self._task, description=label, completed=done, total=total)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


class _Log:
    """Lines in a log, every few seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._printed = float("-inf")
        self._start = (clock(), 0)
        self._last = 0

    def update(self, label: str, done: int, total: int) -> None:
        """Print a line if the last one is old enough."""
        now = self._clock()
        if done < self._last or self._last == 0:
            self._start = (now, done)
        self._last = done
        if now - self._printed < LOG_EVERY_S:
            return
        self._printed = now
        begun, first = self._start
        rate = (done - first) / (now - begun) if now > begun else 0.0
        left = f", {human_seconds((total - done) / rate)} left" if rate > 0 else ""
        render.note(f"{label}: {done}/{total}{left}")

    def say(self, text: str) -> None:
        """Print a line."""
        render.note(text)

    def close(self) -> None:
        """Nothing is on the screen."""
