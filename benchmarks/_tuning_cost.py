"""What trials cost and what a search would have chosen for a part of the cost. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from adapterbank.config.search import Range
from adapterbank.search.ledger import Trial
from adapterbank.search.outcome import choose

FRACTIONS = (0.25, 0.5, 0.75, 1.0)
"""Of the whole cost, at which searches are compared."""


def cost_of(trial: Trial) -> int:
    """Epochs a trial took; the one in which it diverged, or failed, counts as a whole one."""
    return len(trial.points) + (trial.state in {"diverged", "failed"})


def best_so_far(
    trials: Sequence[Trial], cost: int, fractions: Sequence[float] = FRACTIONS
) -> tuple[float | None, ...]:
    """Validation accuracy of what the search would have chosen, had it ended earlier.

    A trial counts from the moment its last epoch is paid for. The choice is the product's own:
    among trials that got furthest. So it can fall, when the first whole trial is worse than one
    that was stopped.

    Args:
        trials: in the order in which they ended.
        cost: epochs in all.
        fractions: of it.

    Returns:
        One for each fraction; None where no trial had ended.
    """
    found = []
    for fraction in fractions:
        spent, ended = 0, []
        for trial in trials:
            spent += cost_of(trial)
            if spent > fraction * cost + 1e-9:
                break
            ended.append(trial)
        best = choose(ended)
        found.append(None if best is None else best.points[-1].val.accuracy)
    return tuple(found)


def mean_of(values: Sequence[float | None]) -> float | None:
    """Mean over seeds; None where one of them has no figure, so that all means are of the same."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def levels(low: float, high: float, count: int) -> list[float]:
    """So many numbers, equally far apart in the logarithm, ends included; the middle of one."""
    if count == 1:
        return [math.sqrt(low * high)]
    step = (math.log(high) - math.log(low)) / (count - 1)
    return [math.exp(math.log(low) + step * index) for index in range(count)]


def grid_of(space: dict[str, Any], count: int) -> dict[str, list[Any]]:
    """A grid of exactly ``count`` points: learning rates by numbers of prompts.

    As many numbers of prompts as divide it, up to all of the space's and not more than learning
    rates; what else the space has stays at the method's default, as in a grid made by hand.
    """
    prompts, rate = list(space["prompts"]), Range.model_validate(space["learning_rate"])
    wide = max(
        n for n in range(1, len(prompts) + 1) if count % n == 0 and (n * n <= count or n == 1)
    )
    first = len(prompts) // 2 if wide == 1 else 0
    return {
        "prompts": prompts[first : first + wide],
        "learning_rate": levels(rate.low, rate.high, count // wide),
    }
