"""Read the accuracy matrix that ``release`` keeps, and what it says of forgetting.

``reports/matrix.json`` has a step for each champion that moved, in order, with counts of right
answers on the test images of every task that was served then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal

from pydantic import ConfigDict, FailFast, Field
from pydantic.dataclasses import dataclass

from adapterbank.continual.metrics import (
    AccuracyMatrix,
    RoutedScore,
    oracle_gap,
    routing_interference,
    summarise,
    task_identity,
)
from adapterbank.durable import read_file
from adapterbank.errors import InputError, IntegrityError
from adapterbank.records import Score
from adapterbank.registry.backbone import Sha256
from adapterbank.registry.documents import parse_document

__all__ = ["MATRIX", "Count", "Step", "figures", "read_matrix"]

MATRIX = "reports/matrix.json"
_LIMIT = 1 << 28
_FIX = f"git checkout -- {MATRIX}, or remove it and dvc repro --force release"
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Count:
    """Right answers among ``total`` test images."""

    correct: Annotated[int, Field(ge=0)]
    total: Annotated[int, Field(ge=1)]

    @property
    def score(self) -> Score:
        """The same as the rest of the project has it."""
        return Score(correct=self.correct, total=self.total)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Champion:
    """The version that was served."""

    version: Annotated[int, Field(ge=1)]
    digest: Sha256


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Step:
    """One champion that moved, and how every task stood then.

    Args:
        step: from 0.
        task: whose champion moved.
        version: to which.
        kind: ``new task``, ``new classes``, ``new domain`` or ``new version``.
        champions: what was served, by task.
        oracle: right labels, where the task is told.
        routed: right labels, where the router finds the task.
        identity: images whose task the router found.
        abstained: images that the router took for no task's.
    """

    step: Annotated[int, Field(ge=0)]
    task: str
    version: Annotated[int, Field(ge=1)]
    kind: str
    champions: dict[str, Champion]
    oracle: dict[str, Count]
    routed: dict[str, Count]
    identity: dict[str, Count]
    abstained: dict[str, Count]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class _Document:
    schema: Literal[1]
    steps: Annotated[tuple[Step, ...], FailFast()]


def read_matrix(path: Path) -> tuple[Step, ...]:
    """Read the steps of ``reports/matrix.json``, oldest first.

    Raises:
        FileNotFoundError: there is none.
        IntegrityError: it is damaged, or of an unknown schema.
    """
    document = parse_document(read_file(path, limit=_LIMIT), _Document, where=MATRIX, fix=_FIX)
    for index, step in enumerate(document.steps):
        if step.step != index:
            raise IntegrityError(f"{MATRIX}: step {step.step} stands where {index} was", fix=_FIX)
        for name in ("oracle", "routed", "identity", "abstained"):
            for task, count in getattr(step, name).items():
                if count.correct > count.total:
                    raise IntegrityError(
                        f"{MATRIX}: step {index} has {count.correct} of {count.total} in"
                        f" {name} of {task}",
                        fix=_FIX,
                    )
    return document.steps


def figures(steps: Sequence[Step]) -> dict[str, float]:
    """Compute the metrics of continual learning under the names of ``continual/metrics.py``.

    Where a task was learned more than once, only averages are: the other variants are defined for
    one step a task.

    Args:
        steps: of :func:`read_matrix`.

    Returns:
        Fractions by name, ``oracle/…`` and ``routed/…``; empty of no step.
    """
    if not steps:
        return {}
    found: dict[str, float] = {}
    for name, rows in (
        ("oracle", [step.oracle for step in steps]),
        ("routed", [step.routed for step in steps]),
    ):
        found |= {f"{name}/{key}": value for key, value in _variants(steps, rows).items()}
    last = steps[-1]
    scores = {
        task: RoutedScore(
            routed=last.routed[task].score,
            identity=last.identity[task].score,
            oracle=last.oracle[task].score,
        )
        for task in sorted(last.oracle.keys() & last.routed.keys() & last.identity.keys())
    }
    if scores:
        found["oracle_gap"] = oracle_gap(scores)
        found["task_identity"] = task_identity(scores)
        lost = routing_interference(_first_identity(steps, scores), _identity(last))
        found["routing_interference"] = fmean(lost.values())
    return found


def _variants(steps: Sequence[Step], rows: Sequence[Mapping[str, Count]]) -> dict[str, float]:
    tasks = tuple(step.task for step in steps)
    if len(set(tasks)) == len(tasks):
        try:
            counts = tuple(
                tuple(row[task].score if task in row else None for task in tasks) for row in rows
            )
            return summarise(AccuracyMatrix(tasks=tasks, rows=counts))
        except InputError:  # a task was left out of a step: averages are all there is
            pass
    last = rows[-1].values()
    if not last:
        return {}
    return {
        "average": fmean(count.score.accuracy for count in last),
        "average/micro": sum(one.correct for one in last) / sum(one.total for one in last),
    }


def _identity(step: Step) -> dict[str, float]:
    return {task: count.score.accuracy for task, count in step.identity.items()}


def _first_identity(steps: Sequence[Step], tasks: Mapping[str, object]) -> dict[str, float]:
    """Recall of each task's identity when it was first measured."""
    first: dict[str, float] = {}
    for step in steps:
        for task, recall in _identity(step).items():
            if task in tasks:
                first.setdefault(task, recall)
    return first
