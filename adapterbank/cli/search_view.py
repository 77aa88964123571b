"""A search shown while it runs, and what it found."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from adapterbank.cli import render
from adapterbank.cli.progress import Every, print_above
from adapterbank.cli.render import Answer, Table
from adapterbank.text import human_seconds, visible

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table as RichTable

    from adapterbank.search.ledger import Trial
    from adapterbank.search.study import SearchResult
    from adapterbank.search.task_search import Standing

LOG_EVERY_S = 10.0


def run(
    what: str, search: Callable[[SearchView], Iterable[SearchResult]], *, quiet: bool
) -> list[Answer]:
    """Search, with its progress on standard error; an answer a task.

    Args:
        what: the words after ``tune`` that would go on with it.
        search: given where to show how it goes.
        quiet: show nothing in a log.
    """
    with closing(SearchView(quiet=quiet)) as view:
        try:
            return [_answer(result) for result in search(view)]
        except (KeyboardInterrupt, SystemExit):
            view.note(f"Stopped; nothing is lost. To go on: adapterbank tune {what} --resume")
            raise


class SearchView:
    """One live table in a terminal; in a log a line for each trial and every few seconds.

    Args:
        quiet: show nothing in a log.
        clock: tells seconds.
    """

    def __init__(self, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._log_time = Every(LOG_EVERY_S, clock)
        self._standings: dict[str, Standing] = {}  # by task, in the order of their searches
        self._live: Live | None = None

    def note(self, text: str) -> None:
        """Print a line."""
        if self._live is not None:
            print_above(self._live.console, text)
        elif not self._quiet:
            render.note(text)

    def update(self, standing: Standing) -> None:
        """Show how the search of a task stands, under those of the tasks before it."""
        self._standings[standing.task] = standing
        if sys.stderr.isatty():
            self._live = self._live or _start_live()
            self._live.update(_table(self._standings.values()))
        elif not self._quiet and self._log_time.due():
            render.note("  ".join([f"{standing.task}:", *_cells(standing)]))

    def ended(self, task: str, trial: Trial) -> None:
        """Print what a trial gave."""
        score = f"val {trial.points[-1].val.accuracy:.1%}" if trial.points else "no epoch"
        epochs = f"{len(trial.points)} epochs" + (", stopped" if trial.state == "stopped" else "")
        tail = f"  {trial.state}: {trial.error}" if trial.error else ""
        self.note(
            f"{task} trial {trial.number}  {score}  {epochs}  {_values_text(trial.values)}{tail}"
        )

    def close(self) -> None:
        """Take the table away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _start_live() -> Live:
    from rich.console import Console
    from rich.live import Live

    live = Live(console=Console(stderr=True), transient=True, refresh_per_second=4)
    live.start()
    return live


def _answer(result: SearchResult) -> Answer:
    """Write a search's front and its winner."""
    rows = [
        (
            str(trial.number),
            render.share(trial.points[-1].val),
            f"{trial.parameters:,}",
            "" if trial.latency is None else f"{trial.latency:.2f}×",
            _values_text(trial.values)
            + ("  ← chosen" if trial.number == result.winner.trial else ""),
        )
        for trial in result.front
    ]
    budget = result.winner.budget
    text: list[str | Table] = [
        Table((f"{result.task} trial", ">val", ">parameters", ">forward", "values"), rows),
        (
            f"Chosen among {budget.trials} trials ({budget.epochs} epochs, {budget.sampler},"
            f" {budget.scheduler}) in {human_seconds(result.seconds)}; the table has those"
            f" that no other beats at their cost. All of them: work/{result.task}/trials.csv."
            " Being the best of them, the validation accuracy is too high"
        ),
    ]
    content = {
        **vars(result.winner),
        "front": [trial.number for trial in result.front],
        "trials": result.trials,
        "seconds": result.seconds,
    }
    return Answer(content, text)


def _values_text(values: dict[str, Any]) -> str:
    """A configuration in one line."""
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in values.items()
    )


def _cells(standing: Standing) -> tuple[str, ...]:
    total = "?" if standing.trials is None else str(standing.trials)
    best = "–" if standing.score is None else f"{standing.score:.1%}"
    left = "" if standing.left_s is None else f"{human_seconds(standing.left_s)} left"
    return (
        f"{standing.ended}/{total} trials", f"{standing.running} running",
        f"{standing.epochs} epochs", f"best {best}", left,
    )  # fmt: skip


def _table(standings: Iterable[Standing]) -> RichTable:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("task", "trials", "running", "epochs", "best on validation", "time", "values"):
        table.add_column(name)
    for standing in standings:
        values = "" if standing.best is None else _values_text(standing.best.values)
        cells = (standing.task, *_cells(standing), values)
        table.add_row(*(Text(visible(text)) for text in cells))
    return table
