"""Read the accuracy matrix that ``release`` keeps, and what it says of forgetting.

``reports/matrix.json`` has a step for each champion that moved, in order, with counts of right
answers on the test images of every task that was served then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Final, Literal

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

__all__ = ["MATRIX", "Champion", "Matrix", "Right", "Step", "read_matrix", "summary"]

MATRIX: Final = "reports/matrix.json"
_LIMIT = 1 << 28
_FIX = f"git checkout -- {MATRIX}, or delete it: it begins anew with the champions there are"
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Right:
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
    """One champion that was new, and how every task stood then.

    Args:
        step: from 0.
        task: whose champion was new.
        version: its number.
        kind: what it was to the bank.
        champions: what was served, by task.
        oracle: right labels, where the task is told.
        routed: right labels, where the router finds the task.
        identity: images whose task the router found.
        abstained: images that the router took for no task's.
        carried: tasks whose figures are those of the step before.
    """

    step: Annotated[int, Field(ge=0)]
    task: str
    version: Annotated[int, Field(ge=1)]
    kind: Literal["new task", "new classes", "new domain", "new version"]
    champions: dict[str, Champion]
    oracle: dict[str, Right]
    routed: dict[str, Right]
    identity: dict[str, Right]
    abstained: dict[str, Right]
    carried: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Matrix:
    """All steps so far, oldest first."""

    schema: Literal[1] = 1
    steps: Annotated[tuple[Step, ...], FailFast()] = ()


def read_matrix(root: Path) -> Matrix:
    """Read a bank's matrix; an empty one where there is none.

    Raises:
        IntegrityError: it is damaged, or of an unknown schema.
    """
    try:
        data = read_file(root / MATRIX, limit=_LIMIT)
    except FileNotFoundError:
        return Matrix()
    matrix = parse_document(data, Matrix, where=MATRIX, fix=_FIX)
    for index, step in enumerate(matrix.steps):
        if step.step != index:
            raise IntegrityError(f"{MATRIX}: step {step.step} stands where {index} was", fix=_FIX)
        for name in ("oracle", "routed", "identity", "abstained"):
            for task, one in getattr(step, name).items():
                if one.correct > one.total:
                    raise IntegrityError(
                        f"{MATRIX}: step {index} has {one.correct} of {one.total} in {name} of"
                        f" {task}",
                        fix=_FIX,
                    )
    return matrix


def summary(matrix: Matrix) -> dict[str, Any]:
    """Compute the metrics of continual learning under the names of ``continual/metrics.py``.

    Where a task was learned more than once, only averages are: the other variants are defined for
    one step a task.

    Returns:
        ``steps`` and ``tasks``; fractions by name in ``oracle`` and ``routed``; ``routing`` with
        ``task_identity``, ``oracle_gap`` and ``interference`` by task.
    """
    if not matrix.steps:
        return {"steps": 0, "tasks": 0}
    steps, last = matrix.steps, matrix.steps[-1]
    found: dict[str, Any] = {"steps": len(steps), "tasks": len(last.champions)}
    for name in ("oracle", "routed"):
        variants = _variants(steps, [getattr(step, name) for step in steps])
        found |= {name: variants} if variants else {}
    scores = {
        task: RoutedScore(
            routed=last.routed[task].score,
            identity=last.identity[task].score,
            oracle=last.oracle[task].score,
        )
        for task in sorted(last.oracle.keys() & last.routed.keys() & last.identity.keys())
    }
    if scores:
        first: dict[str, float] = {}
        for step in steps:
            for task in scores.keys() & step.identity.keys():
                first.setdefault(task, step.identity[task].score.accuracy)
        now = {task: one.identity.accuracy for task, one in scores.items()}
        found["routing"] = {
            "task_identity": task_identity(scores),
            "oracle_gap": oracle_gap(scores),
            "interference": routing_interference(first, now),
        }
    return found


def _variants(steps: Sequence[Step], rows: Sequence[Mapping[str, Right]]) -> dict[str, float]:
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
        "average": fmean(one.score.accuracy for one in last),
        "average/micro": sum(one.correct for one in last) / sum(one.total for one in last),
    }
