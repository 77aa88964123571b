"""How far work has come and how long it will take, on standard error.

A terminal shows a bar that goes away when the work is done; a log gets a plain line every few
seconds. Work of under two seconds shows nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from adapterbank.cli import render
from adapterbank.text import human_seconds, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

    from adapterbank.training.sinks import Epoch

SHOW_AFTER_S = 2.0
LOG_EVERY_S = 5.0
EPOCH_EVERY_S = 1.0


class Every:
    """Tells whether it is time again.

    Args:
        seconds: between two times; the first is at once.
        clock: tells seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._last = float("-inf")

    def due(self, *, always: bool = False) -> bool:
        """Whether it is time, which starts the next wait."""
        now = self._clock()
        if not always and now - self._last < self._seconds:
            return False
        self._last = now
        return True


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
        self._log_time = Every(LOG_EVERY_S, clock)
        self.total = 0  # as of the last call
        self._begun: float | None = None
        self._round = (0.0, 0)  # when it began, and how much was done then
        self._done = 0
        self._shown: RichProgress | None = None

    def __call__(self, done: int, total: int) -> None:
        """Note that ``done`` of ``total`` are done; going backwards starts a new round."""
        now = self._clock()
        self.total = total
        anew = self._begun is None or done < self._done
        self._begun = now if self._begun is None else self._begun
        if anew:
            self._round = (now, done)
        self._done = done
        if now - self._begun < SHOW_AFTER_S:
            return
        if sys.stderr.isatty():
            self._shown = self._shown or _rich_progress()
            if anew:
                self._shown.reset(self._shown.task_ids[0])
            self._shown.update(
                self._shown.task_ids[0],
                description=visible(self.label),
                completed=done,
                total=total,
            )
        elif not self._quiet and self._log_time.due():
            begun, first = self._round
            rate = (done - first) / (now - begun) if now > begun else 0.0
            left = f", {human_seconds((total - done) / rate)} left" if rate > 0 else ""
            render.note(f"{self.label}: {done}/{total}{left}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._shown is not None:
            print_above(self._shown.console, text)
        elif not self._quiet:
            render.note(text)

    def close(self) -> None:
        """Take the bar away."""
        if self._shown is not None:
            self._shown.stop()
            self._shown = None


def print_above(console: Console, text: str) -> None:
    """Print a line above what a console shows: as it is, though it looks like markup."""
    from rich.text import Text

    console.print(Text(visible(text)))


def bar(label: str, *, quiet: bool = False) -> closing[Bar]:
    """Show the progress of what runs in a ``with`` statement's block."""
    return closing(Bar(label, quiet=quiet))


@contextmanager
def spinner(label: str, *, quiet: bool = False) -> Iterator[None]:
    """Show that something runs in the block whose length nobody knows."""
    if not sys.stderr.isatty():
        if not quiet:
            render.note(f"{label}…")
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(visible(f"{label}…"))):
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
        self._epoch_time = Every(EPOCH_EVERY_S, clock)
        self._label = label
        self._epochs = epochs
        self._val = val
        self.on_start: Callable[[], None] | None = None  # called once, before the first step

    def step(self, done: int, total: int) -> None:
        """Move the bar."""
        if self.on_start is not None:
            self.on_start()
            self.on_start = None
        self._bar(done, total)

    def epoch(self, epoch: Epoch) -> None:
        """Print the figures, where the last ones are a second old, and keep them by the bar."""
        val = f"{self._val} {epoch.val.accuracy:.1%}"
        self._bar.label = f"{self._label}  loss {epoch.loss:.3f}  {val}"
        if self._epoch_time.due(always=epoch.number >= self._epochs):
            self._bar.say(
                f"epoch {epoch.number:>{len(str(self._epochs))}}/{self._epochs}"
                f"  loss {epoch.loss:.4f}  train {epoch.train.accuracy:.1%}  {val}"
                f"  {human_seconds(epoch.seconds)}"
            )

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


def _rich_progress() -> RichProgress:
    """Show a bar of one task in the terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
    )
    progress.add_task("", total=None)
    progress.start()
    return progress
