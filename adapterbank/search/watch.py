"""What Tune tells the driver: into the ledgers, to MLflow, and onto the screen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ray.tune import Callback

from adapterbank.errors import AdapterBankError
from adapterbank.records import Score
from adapterbank.search.contest import Entry
from adapterbank.search.interrupts import Interrupts
from adapterbank.search.ledger import Point, Trial
from adapterbank.search.outcome import choose


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one task's search stands."""

    task: str
    trials: int | None  # that there will be at most; None: as many as the grid has
    done: int
    running: int
    epochs: int  # over all trials
    best: Trial | None
    score: float | None  # of the best so far, which need not have ended
    left_s: float | None  # seconds, guessed from the pace so far


class View(Protocol):
    """Whoever wants to see a search while it runs."""

    def update(self, standings: tuple[Standing, ...]) -> None:
        """Called after every epoch of every trial."""

    def ended(self, task: str, trial: Trial) -> None:
        """Called when a trial has ended."""


class Watch(Callback):
    """Follow the trials of an experiment.

    Args:
        entries: by task.
        view: shown how it goes.
        log: sends a trial that has ended to MLflow; a failure there must not stop a search, so
            it takes care of its own.
        retries: of a trial whose worker was lost where Tune does not retry it itself.
    """

    def __init__(
        self,
        entries: Mapping[str, Entry],
        view: View,
        log: Callable[[str, Trial], None],
        retries: int,
    ) -> None:
        self._entries = entries
        self._view = view
        self._log = log
        self._retries = retries
        self.interrupts = Interrupts()  # answered between two of Tune's steps
        self._given_back: Counter[tuple[str, int]] = Counter()
        self._points: dict[tuple[str, int], dict[int, Point]] = {}
        self._errors: dict[tuple[str, int], str] = {}
        self._running: set[tuple[str, int]] = set()
        self._begun = time.monotonic()
        self._before = {task: entry.ledger.seconds for task, entry in entries.items()}
        self._ended = dict.fromkeys(entries, 0)
        self._failure: AdapterBankError | None = None

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has a worker."""
        self._running.add(_key(trial))
        self._show()

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """An epoch is done, perhaps for the second time."""
        key = _key(trial)
        if "diverged" in result:
            self._errors[key] = str(result["diverged"])
            return
        if "correct" not in result:
            return
        self._points.setdefault(key, {})[int(result["epoch"])] = Point(
            epoch=int(result["epoch"]),
            val=Score(correct=int(result["correct"]), total=int(result["total"])),
            val_loss=float(result["val_loss"]),
            loss=float(result["loss"]),
            seconds=float(result["seconds"]),
        )
        self._show()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended, by itself or because its scheduler said so."""
        self._end(_key(trial), self._errors.get(_key(trial)))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has failed once too often, or in a way that Tune does not try again.

        It counts no failure between one trial's end and the next one's start on the same worker:
        it gives that trial up at once, with all its retries unused.
        """
        key = _key(trial)
        if trial.should_recover() and self._given_back[key] < self._retries:
            self._given_back[key] += 1
            self._running.discard(key)
            self._entries[key[0]].give_back(key[1])
            return
        self._end(key, _reason(trial))

    def time_is_up(self) -> None:
        """Keep what trials gave that the clock cut off: Tune ends those without a word.

        Raises:
            AdapterBankError: the storage cannot be written.
        """
        for key in sorted(self._running):
            self._end(key, None)
        if self._failure is not None:
            raise self._failure

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End the search if it was interrupted, or its state cannot be kept any more.

        Raises:
            AdapterBankError: what the storage said. Raised here and not where it happened, since
                Tune takes an error there for one of the trial's, which it runs again.
        """
        self.interrupts.check()
        if self._failure is not None:
            raise self._failure

    @property
    def seconds(self) -> float:
        """Wall time since this process began."""
        return time.monotonic() - self._begun

    def _end(self, key: tuple[str, int], error: str | None) -> None:
        task, number = key
        self._running.discard(key)
        points = tuple(p for _, p in sorted(self._points.get(key, {}).items()))
        entry = self._entries[task]
        try:
            ended = entry.end(number, points, error)
            if ended is None:
                return
            entry.ledger.note(seconds=self._before[task] + self.seconds)
        except AdapterBankError as failure:
            self._failure = failure
            return
        self._ended[task] += 1
        self._log(task, ended)
        self._view.ended(task, ended)
        self._show()

    def _show(self) -> None:
        self._view.update(tuple(self._standing(task) for task in sorted(self._entries)))

    def _standing(self, task: str) -> Standing:
        entry = self._entries[task]
        done = [trial for trial in entry.ledger.trials.values() if trial.done]
        live = {n: p for (t, n), p in self._points.items() if t == task and (t, n) in self._running}
        epochs = sum(len(t.points) for t in done) + sum(map(len, live.values()))
        best = choose(tuple(done))
        running = [max(points.items())[1].val.accuracy for points in live.values()]
        scores = [*running, *([best.score] if best is not None and best.score else [])]
        total = entry.config.trials
        left = None
        if total is not None and self._ended[task]:
            left = (total - len(done)) * self.seconds / self._ended[task]
        return Standing(
            task=task,
            trials=total,
            done=len(done),
            running=sum(1 for t, _ in self._running if t == task),
            epochs=epochs,
            best=best,
            score=max(scores, default=None),
            left_s=left,
        )


def _key(trial: Any) -> tuple[str, int]:
    return trial.config["task"], int(trial.config["number"])


def _reason(trial: Any) -> str:
    """The last line of what a worker said, which is the error itself."""
    text = str((getattr(trial, "pickled_error_file", "") and trial.get_error()) or "")
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "its worker was lost"
