"""What a search found: the winner, and who could not be beaten at their cost."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from adapterbank.search.ledger import Trial


def choose(trials: Sequence[Trial]) -> Trial | None:
    """The winner: among the trials that got furthest, most right answers on validation images.

    Ties go to the smaller learning rate, as in the published search, then to fewer parameters,
    then to the earlier trial, so that equal results always give the same winner.

    Returns:
        None where no trial has a whole epoch.
    """
    sound = [t for t in trials if t.points and t.error is None]
    if not sound:
        return None
    furthest = max(len(trial.points) for trial in sound)
    return min((t for t in sound if len(t.points) == furthest), key=_rank)


def pareto(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Trials that no other equals or beats in accuracy, parameters and latency at once.

    Of trials that are equal in all three the first counts. Best first. Latencies must have been
    measured.
    """
    furthest = max((len(t.points) for t in trials if t.error is None), default=0)
    whole = [t for t in trials if t.error is None and t.points and len(t.points) == furthest]
    front = [t for t in whole if not any(_beats(other, t) for other in whole)]
    return tuple(sorted(front, key=_rank))


def table(trials: Sequence[Trial], chosen: Trial | None) -> str:
    """All trials as CSV, best first; the front and the winner are marked."""
    front = {trial.number for trial in pareto(trials)}
    names = sorted({name for trial in trials for name in trial.values})
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["trial", "state", "epochs", "correct", "total", "accuracy", "parameters", "latency",
         "pareto", "chosen", *names]
    )  # fmt: skip
    for trial in sorted(trials, key=lambda t: (-len(t.points), *_rank(t))):
        last = trial.points[-1].val if trial.points else None
        writer.writerow(
            [
                trial.number,
                trial.state,
                len(trial.points),
                "" if last is None else last.correct,
                "" if last is None else last.total,
                "" if last is None else f"{last.accuracy:.6f}",
                trial.parameters,
                "" if trial.latency is None else f"{trial.latency:.3f}",
                int(trial.number in front),
                int(chosen is not None and trial.number == chosen.number),
                *(_cell(trial.values.get(name)) for name in names),
            ]
        )
    return stream.getvalue()


def _rank(trial: Trial) -> tuple[float, float, int, int]:
    rate = trial.values.get("learning_rate")
    correct = trial.points[-1].val.correct if trial.points else -1
    return (-correct, float(rate) if rate is not None else 0.0, trial.parameters, trial.number)


def _beats(one: Trial, other: Trial) -> bool:
    mine, theirs = _figures(one), _figures(other)
    at_least = all(a <= b for a, b in zip(mine, theirs, strict=True))
    return at_least and (mine != theirs or one.number < other.number)


def _figures(trial: Trial) -> tuple[float, float, float]:
    latency = trial.latency if trial.latency is not None else 0.0
    return (-trial.points[-1].val.correct, trial.parameters, latency)


def _cell(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
