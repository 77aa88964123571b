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
``fwt/gem``                before it was learned, less an untrained model (Lopez-Paz & Ranzato 2017)
``fwt/no_baseline``        the same without that subtraction: continuum
``intransigence``          trained alone, less just after it was learned (Chaudhry et al. 2018)
``renewal``                a task just after it was learned anew, less just before; no library's
=========================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from adapterbank.errors import InputError
from adapterbank.records import Score


@dataclass(frozen=True, kw_only=True)
class AccuracyMatrix:
    """Counts of right answers: a row for each step, a column for each task.

    Args:
        tasks: names in the order of arrival.
        rows: for each step so far, a count for each task, or None where it was not measured.
        learned: for each task the steps that learned it, ascending, the first being its arrival;
            empty for one that did not arrive yet. None: step ``i`` learned ``tasks[i]``.

    Raises:
        InputError: a row has another length, a task was not measured when it was learned or
            afterwards, or ``learned`` is of other tasks or steps.
    """

    tasks: tuple[str, ...]
    rows: tuple[tuple[Score | None, ...], ...]
    learned: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a matrix of which the metrics would mean nothing."""
        if self.learned is None and len(self.rows) > len(self.tasks):
            raise InputError(f"{len(self.rows)} steps, but {len(self.tasks)} tasks")
        if self.learned is not None and len(self.learned) != len(self.tasks):
            raise InputError(f"{len(self.learned)} tasks learned, but {len(self.tasks)} tasks")
        for task, steps in zip(self.tasks, self.learned or (), strict=self.learned is not None):
            if list(steps) != sorted(set(steps)) or any(not 0 <= i < self.steps for i in steps):
                raise InputError(f"{task} was learned at steps {steps} of {self.steps}")
        if self.rows and not self.seen(0):
            raise InputError("step 0 learned none of the tasks")
        for step, row in enumerate(self.rows):
            if len(row) != len(self.tasks):
                raise InputError(
                    f"step {step} has {len(row)} counts, expected {len(self.tasks)}, one a task"
                )
            for column in self.seen(step):
                score = row[column]
                if score is None or score.total == 0:
                    raise InputError(f"step {step} has no count of {self.tasks[column]}")

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.rows)

    def seen(self, step: int) -> tuple[int, ...]:
        """Columns of the tasks that have arrived by a step."""
        return tuple(
            column
            for column in range(len(self.tasks))
            if (steps := self._learned(column)) and steps[0] <= step
        )

    def arrival(self, column: int) -> int:
        """The step that learned a task first."""
        return self._learned(column)[0]

    def since(self, step: int, column: int) -> int:
        """The last step, ``step`` included, that learned a task which has arrived."""
        return max(one for one in self._learned(column) if one <= step)

    def old(self, step: int) -> tuple[int, ...]:
        """Columns of the tasks that the step itself did not learn."""
        return tuple(column for column in self.seen(step) if self.since(step, column) < step)

    def renewed(self) -> Iterator[tuple[int, int]]:
        """Steps that learned a task anew, each with its column."""
        for column in range(len(self.tasks)):
            yield from ((step, column) for step in self._learned(column)[1:])

    def _learned(self, column: int) -> tuple[int, ...]:
        if self.learned is not None:
            return self.learned[column]
        return (column,) if column < self.steps else ()

    def accuracy(self, step: int, column: int) -> float:
        """``R[step, column]``.

        Raises:
            InputError: it was not measured.
        """
        score = self.rows[step][column]
        if score is None:
            raise InputError(f"{self.tasks[column]} was not measured at step {step}")
        return score.accuracy

    def with_row(self, row: Mapping[str, Score]) -> AccuracyMatrix:
        """Append what was measured after the next step.

        Raises:
            InputError: a name is not one of the tasks, or a task seen so far has no count.
        """
        strange = sorted(row.keys() - set(self.tasks))
        if strange:
            raise InputError(f"{strange[0]} is none of the tasks {', '.join(self.tasks)}")
        counts = tuple(row.get(task) for task in self.tasks)
        return AccuracyMatrix(tasks=self.tasks, rows=(*self.rows, counts), learned=self.learned)


@dataclass(frozen=True, kw_only=True)
class RoutedScore:
    """One task's test images, answered by the version the router chose.

    Args:
        routed: right labels under the task that was chosen. Who counts abstentions as wrong labels
            must do so in ``identity`` too.
        identity: images whose task was told right.
        oracle: right labels under the true task.
    """

    routed: Score
    identity: Score
    oracle: Score


def summarise(
    matrix: AccuracyMatrix,
    *,
    untrained: Mapping[str, float] | None = None,
    alone: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Compute every metric that the matrix allows; see the module for their names.

    Args:
        matrix: at least one step.
        untrained: accuracy of an untrained model by task, for ``fwt/gem``.
        alone: accuracy of a model trained on the task alone, or on all jointly, for
            ``intransigence``: say which beside the figure.

    Raises:
        InputError: the matrix has no step, or a task has no figure in a mapping that was given.
    """
    if not matrix.steps:
        raise InputError("no step yet: there is nothing to summarise")
    last = matrix.steps - 1
    found = {
        "average": _average(matrix, last),
        "average/micro": _pooled(matrix, last),
        "average/incremental": fmean(_average(matrix, step) for step in range(matrix.steps)),
    }
    if matrix.old(last):
        found |= {
            "forgetting/chaudhry": fmean(_chaudhry(matrix, last)),
            "forgetting/clamped": fmean(_clamped(matrix, last)),
            "forgetting/first": fmean(_first(matrix, last)),
            "bwt/gem": 0.0 - fmean(_first(matrix, last)),  # never -0.0
        }
    pairs = [(step, column) for step in range(matrix.steps) for column in matrix.old(step)]
    if pairs:
        found["bwt/all_pairs"] = fmean(
            matrix.accuracy(step, column)
            - matrix.accuracy(matrix.since(step, column), column)
            for step, column in pairs
        )  # fmt: skip
    found |= _forward(matrix, untrained)
    gains = [matrix.accuracy(i, j) - matrix.accuracy(i - 1, j) for i, j in matrix.renewed()]
    if gains:
        found["renewal"] = fmean(gains)
    if alone is not None:
        found["intransigence"] = fmean(
            _of(alone, matrix.tasks[column])
            - matrix.accuracy(matrix.since(last, column), column)
            for column in matrix.seen(last)
        )  # fmt: skip
    return found


def oracle_gap(scores: Mapping[str, RoutedScore]) -> float:
    """What choosing the task costs: mean accuracy under the true task, less under the chosen."""
    return fmean(one.oracle.accuracy - one.routed.accuracy for one in _some(scores))


def task_identity(scores: Mapping[str, RoutedScore]) -> float:
    """Mean share of images whose task was told right."""
    return fmean(one.identity.accuracy for one in _some(scores))


def routing_interference(
    after_learning: Mapping[str, float], now: Mapping[str, float]
) -> dict[str, float]:
    """What later tasks cost each task in being recognised.

    Isolated adapters forget nothing; this is the only forgetting such a bank has.

    Args:
        after_learning: recall of each task's identity just after it was added.
        now: recall now.

    Returns:
        By task, the recall that was lost; negative where it was gained.

    Raises:
        InputError: a task has no figure in one of the two.
    """
    return {task: after_learning[task] - _of(now, task) for task in sorted(after_learning)}


def _average(matrix: AccuracyMatrix, step: int) -> float:
    return fmean(matrix.accuracy(step, column) for column in matrix.seen(step))


def _pooled(matrix: AccuracyMatrix, step: int) -> float:
    row = matrix.rows[step]
    seen = [score for column in matrix.seen(step) if (score := row[column]) is not None]
    return sum(score.correct for score in seen) / sum(score.total for score in seen)


def _chaudhry(matrix: AccuracyMatrix, last: int) -> Iterator[float]:
    for column in matrix.old(last):
        earlier = range(matrix.since(last, column), last)
        best = max(matrix.accuracy(step, column) for step in earlier)
        yield best - matrix.accuracy(last, column)


def _clamped(matrix: AccuracyMatrix, last: int) -> Iterator[float]:
    # Those libraries fill steps before the task with zeros, which never are the best.
    return (max(0.0, lost) for lost in _chaudhry(matrix, last))


def _first(matrix: AccuracyMatrix, last: int) -> Iterator[float]:
    for column in matrix.old(last):
        begun = matrix.since(last, column)
        yield matrix.accuracy(begun, column) - matrix.accuracy(last, column)


def _forward(matrix: AccuracyMatrix, untrained: Mapping[str, float] | None) -> dict[str, float]:
    """Forward transfer, where every task was measured just before it arrived."""
    last, first = matrix.steps - 1, matrix.seen(0)
    arrived = [column for column in matrix.seen(last) if column not in first]
    before = [(column, matrix.rows[matrix.arrival(column) - 1]) for column in arrived]
    figures = [(j, score.accuracy) for j, row in before if (score := row[j]) is not None]
    if not before or len(figures) < len(before):
        return {}
    found = {"fwt/no_baseline": fmean(accuracy for _, accuracy in figures)}
    if untrained is not None:
        found["fwt/gem"] = fmean(
            accuracy - _of(untrained, matrix.tasks[task]) for task, accuracy in figures
        )
    return found


def _of(figures: Mapping[str, float], task: str) -> float:
    if task not in figures:
        raise InputError(f"no figure of {task}, only of {', '.join(sorted(figures)) or 'none'}")
    return figures[task]


def _some(scores: Mapping[str, RoutedScore]) -> Sequence[RoutedScore]:
    if not scores:
        raise InputError("no routed score: there is nothing to average")
    return tuple(scores.values())
