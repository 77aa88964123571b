"""A search shown while it runs, and what it found."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from adapterbank.cli import render
from adapterbank.text import human_seconds, percent

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from adapterbank.bank.bank import Bank
    from adapterbank.search.ledger import Trial
    from adapterbank.search.study import Earlier, Outcome, Where
    from adapterbank.search.watch import Standing

LOG_EVERY_S = 10.0


def run(
    bank: Bank,
    tasks: Sequence[str],
    *,
    where: Where | None = None,
    earlier: Earlier = "resume",
    quiet: bool,
) -> list[dict[str, Any]]:
    """Search, with its progress on standard error and its result on standard output."""
    from adapterbank.search.study import Where, tune

    with SearchView(quiet=quiet) as view:
        try:
            outcomes = tune(
                bank,
                tasks,
                view,
                where or Where(),
                earlier=earlier,
                note=None if quiet else view.note,
            )
        except (KeyboardInterrupt, SystemExit):
            what = tasks[0] if len(tasks) == 1 else "--all"
            view.note(f"Stopped; nothing is lost. To go on: adapterbank tune {what} --resume")
            raise
    if not quiet:
        print_outcomes(outcomes)
    return [outcome_json(outcome) for outcome in outcomes]


class SearchView:
    """One live table in a terminal; in a log a line for each trial and every few seconds.

    Args:
        quiet: show nothing in a log.
        clock: tells seconds.
    """

    def __init__(self, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._said = float("-inf")
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """Print a line."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        elif not self._quiet:
            render.note(text)

    def update(self, standings: tuple[Standing, ...]) -> None:
        """Show how all searches stand."""
        if sys.stderr.isatty():
            self._show(standings)
            return
        now = self._clock()
        if self._quiet or now - self._said < LOG_EVERY_S:
            return
        self._said = now
        for one in standings:
            render.note("  ".join([f"{one.task}:", *_cells(one)]))

    def ended(self, task: str, trial: Trial) -> None:
        """Print what a trial gave."""
        score = f"val {trial.points[-1].val.accuracy:.1%}" if trial.points else "no epoch"
        epochs = f"{len(trial.points)} epochs" + (", stopped" if trial.state == "stopped" else "")
        tail = f"  {trial.state}: {trial.error}" if trial.error else ""
        self.note(
            f"{task} trial {trial.number}  {score}  {epochs}  {values_text(trial.values)}{tail}"
        )

    def _show(self, standings: tuple[Standing, ...]) -> None:
        from rich.console import Console
        from rich.live import Live

        if self._live is None:
            console = Console(stderr=True)
            self._live = Live(console=console, transient=True, refresh_per_second=4)
            self._live.start()
        self._live.update(_table(standings))


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print each search's front and its winner."""
    for outcome in outcomes:
        winner = outcome.winner
        rows = [
            (
                str(trial.number),
                percent(trial.points[-1].val.correct, trial.points[-1].val.total),
                f"{trial.parameters:,}",
                "" if trial.latency is None else f"{trial.latency:.2f}×",
                values_text(trial.values) + ("  ← chosen" if trial.number == winner.trial else ""),
            )
            for trial in outcome.front
        ]
        head = (f"{outcome.task} trial", ">val", ">parameters", ">forward", "values")
        render.table(head, rows)
        budget = winner.budget
        render.line(
            f"Chosen among {budget.trials} trials ({budget.epochs} epochs, {budget.sampler},"
            f" {budget.scheduler}) in {human_seconds(outcome.seconds)}; the table has those"
            " that no other beats at their cost. All of them: work/"
            f"{outcome.task}/trials.csv"
        )


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The result of a search as JSON values."""
    from dataclasses import asdict

    return {
        **asdict(outcome.winner),
        "front": [trial.number for trial in outcome.front],
        "trials": [asdict(trial) for trial in outcome.trials],
        "seconds": outcome.seconds,
    }


def values_text(values: dict[str, Any]) -> str:
    """A configuration in one line."""
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in values.items()
    )


def _cells(one: Standing) -> tuple[str, ...]:
    total = "?" if one.trials is None else str(one.trials)
    best = "–" if one.score is None else f"{one.score:.1%}"
    left = "" if one.left_s is None else f"{human_seconds(one.left_s)} left"
    return (
        f"{one.done}/{total} trials", f"{one.running} running", f"{one.epochs} epochs",
        f"best {best}", left,
    )  # fmt: skip


def _table(standings: tuple[Standing, ...]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("task", "trials", "running", "epochs", "best on validation", "time", "values"):
        table.add_column(name)
    for one in standings:
        values = "" if one.best is None else values_text(one.best.values)
        table.add_row(one.task, *_cells(one), values)
    return table
