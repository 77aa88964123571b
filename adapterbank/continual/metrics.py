"""Metrics of continual learning as pure functions of one matrix of counts.

``R[i, j]`` is the accuracy on task ``j``'s test images after step ``i``, both from 0 in the order
in which the tasks arrived. A step may also learn a task anew, from other data: then its column
begins anew, and whatever compares with "just after it was learned" or with "before" looks no
further back, for another version answered there, perhaps other images. Without such steps all is
as the papers have it.

Several figures go by the same name in different libraries, so every variant stands here under a
name of its own, with the library it agrees with:

=========================  =========================================================================
``average``                mean over seen tasks of the last row (macro average)
``average/micro``          the same, pooled over images: PILOT's ``total``
``average/incremental``    mean over steps of ``average``: the literature's Ā
``forgetting/chaudhry``    best before, less now (Chaudhry et al. 2018; continuum)
``forgetting/clamped``     best at any step, less now; never negative: Mammoth, PILOT, HiDe-Prompt
``forgetting/first``       just after it was learned, less now: Avalanche
``bwt/gem``                backward transfer (Lopez-Paz & Ranzato 2017): minus ``forgetting/first``
``bwt/all_pairs``          the mean over all later steps, not the last alone: continuum
``intransigence``          trained alone, less just after it was learned (Chaudhry et al. 2018)
``renewal``                a task just after it was learned anew, less just before; no library's
=========================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class AccuracyMatrix:
    """Counts of right answers: a row for each of S steps, a column for each of T tasks.

    Args:
        tasks: names in the order of arrival.
        correct: (S, T) right answers.
        total: (S, T) images; 0 where a task was not measured.
        learned: for each task the steps that learned it, ascending, the first being its arrival;
            empty for one that did not arrive yet.
    """

    tasks: tuple[str, ...]
    correct: Integers
    total: Integers
    learned: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        """Refuse a matrix of which the metrics would mean nothing."""
        assert self.correct.shape == self.total.shape == (len(self.correct), len(self.learned))
        assert len(self.tasks) == len(self.learned)
        for task, steps in zip(self.tasks, self.learned, strict=True):
            apart = sorted(set(steps)) == list(steps)
            assert apart and set(steps) <= set(range(self.steps)), f"{task} at {steps}"  # noqa: PT018
        seen = self.begun >= 0
        assert not self.steps or seen[0].any(), "step 0 learned none of the tasks"
        assert not (seen & (self.total == 0)).any(), "a task that was learned was not measured"

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.correct)

    @cached_property
    def accuracy(self) -> Floats:
        """``R`` (S, T); NaN where a task was not measured."""
        share: Floats = self.correct / np.where(self.total, self.total, np.nan)
        return share

    @cached_property
    def begun(self) -> Integers:
        """(S, T) the last step, this one included, that learned a task; -1 before it arrived."""
        begun = np.full(self.correct.shape, -1)
        for column, steps in enumerate(self.learned):
            for step in steps:
                begun[step:, column] = step
        return begun

    @cached_property
    def old(self) -> NDArray[np.bool_]:
        """(S, T) tasks that have arrived and that the step itself did not learn."""
        mask: NDArray[np.bool_] = (self.begun >= 0) & (self.begun < np.arange(self.steps)[:, None])
        return mask

    @cached_property
    def at_first(self) -> Floats:
        """(S, T) accuracy just after a task was last learned; meaningless before it arrived."""
        return np.take_along_axis(self.accuracy, np.maximum(self.begun, 0), axis=0)


def summarise(
    matrix: AccuracyMatrix, *, alone: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Compute every metric that the matrix allows; see the module for their names.

    Args:
        matrix: at least one step.
        alone: accuracy of a model trained on the task alone, or on all jointly, for
            ``intransigence``: say which beside the figure.
    """
    assert matrix.steps, "no step yet: there is nothing to summarise"
    accuracy, seen, old = matrix.accuracy, matrix.begun >= 0, matrix.old
    averages = np.where(seen, accuracy, 0.0).sum(axis=1) / seen.sum(axis=1)
    now = seen[-1]
    metrics = {
        "average": float(averages[-1]),
        "average/micro": float(matrix.correct[-1, now].sum() / matrix.total[-1, now].sum()),
        "average/incremental": float(averages.mean()),
    }
    if old[-1].any():
        best = np.array([
            accuracy[matrix.begun[-1, column] : -1, column].max()
            for column in np.flatnonzero(old[-1])
        ])  # fmt: skip
        lost = best - accuracy[-1, old[-1]]
        first = float((matrix.at_first[-1] - accuracy[-1])[old[-1]].mean())
        metrics |= {
            "forgetting/chaudhry": float(lost.mean()),
            # Those libraries fill steps before the task with zeros, which never are the best.
            "forgetting/clamped": float(np.maximum(lost, 0.0).mean()),
            "forgetting/first": first,
            "bwt/gem": 0.0 - first,  # never -0.0
        }
    if old.any():
        metrics["bwt/all_pairs"] = float((accuracy - matrix.at_first)[old].mean())
    gains = [
        float(accuracy[step, column] - accuracy[step - 1, column])
        for column, steps in enumerate(matrix.learned)
        for step in steps[1:]
    ]
    if gains:
        metrics["renewal"] = fmean(gains)
    if alone is not None:
        wanted = np.array([alone.get(task, np.nan) for task in matrix.tasks])
        assert not np.isnan(wanted[now]).any(), "a task has no figure of it alone"
        metrics["intransigence"] = float((wanted - matrix.at_first[-1])[now].mean())
    return metrics
