"""The accuracy matrix of a bank, ``reports/matrix.json``: a step for each champion that was new.

Counts, never percentages, each measured with the champions of that moment. The file is Git's, one
step a line; metrics, tables and pictures are made of it and can always be made again.

``oracle``: right labels of the champion on its test images, from the version's ``metrics.json``.
``identity``: test images whose likeliest task is the true one, by the router of that moment.
``routed``: both at once. ``abstained``: images that the router would turn away, whatever their
likeliest task; kept apart, as the router's bars are. All are of the test images of one task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, FailFast, Field
from pydantic.dataclasses import dataclass

from adapterbank.config.bank import TaskConfig
from adapterbank.continual.metrics import (
    AccuracyMatrix,
    RoutedScore,
    oracle_gap,
    routing_interference,
    summarise,
    task_identity,
)
from adapterbank.durable import make_directory, replace_file
from adapterbank.errors import IntegrityError
from adapterbank.records import Score
from adapterbank.registry.backbone import Sha256
from adapterbank.registry.documents import dump_document, parse_document

MATRIX: Final = "reports/matrix.json"
_FIX: Final = f"git checkout -- {MATRIX}, or delete it: it begins anew with the champions there are"

Kind = Literal["new task", "new classes", "new domain", "new version"]
Figure = Literal["oracle", "routed", "identity", "abstained"]
FIGURES: Final[tuple[Figure, ...]] = ("oracle", "routed", "identity", "abstained")

_STRICT = ConfigDict(strict=True, extra="forbid")
_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Champion:
    """The version that was served."""

    version: Annotated[int, Field(ge=1)]
    digest: Sha256


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Right:
    """So many of so many images."""

    correct: _Count
    total: Annotated[int, Field(ge=1)]

    @property
    def score(self) -> Score:
        """The same as all others count."""
        return Score(correct=self.correct, total=self.total)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Step:
    """One champion that was new, and what all champions of that moment reached.

    Args:
        step: its place, from 0.
        task: whose champion is new.
        version: the number of that champion.
        kind: what it was to the bank.
        champions: all that were served, by task.
        oracle: by task, see the module; ``routed``, ``identity`` and ``abstained`` likewise, but
            without tasks of which nothing could be measured.
        carried: tasks whose images are not prepared here, so that the router's figures are those
            of the step before.
    """

    step: _Count
    task: str
    version: Annotated[int, Field(ge=1)]
    kind: Kind
    champions: dict[str, Champion]
    oracle: dict[str, Right]
    routed: dict[str, Right]
    identity: dict[str, Right]
    abstained: dict[str, Right]
    carried: tuple[str, ...] = ()

    def of(self, figure: Figure) -> Mapping[str, Right]:
        """One of its figures, by task."""
        found: Mapping[str, Right] = getattr(self, figure)
        return found

    def as_json(self) -> dict[str, Any]:
        """As JSON values, in a fixed order; ``carried`` only where there is any."""
        line: dict[str, Any] = {
            "step": self.step,
            "task": self.task,
            "version": self.version,
            "kind": self.kind,
            "champions": {
                task: {"version": one.version, "digest": one.digest}
                for task, one in sorted(self.champions.items())
            },
        }
        for figure in FIGURES:
            line[figure] = {
                task: {"correct": one.correct, "total": one.total}
                for task, one in sorted(self.of(figure).items())
            }
        return {**line, "carried": list(self.carried)} if self.carried else line


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Matrix:
    """All steps so far, oldest first."""

    schema: Literal[1] = 1
    steps: Annotated[tuple[Step, ...], FailFast()]

    @property
    def champions(self) -> Mapping[str, Champion]:
        """Those of the last step."""
        return self.steps[-1].champions if self.steps else {}

    def upto(self, count: int) -> Matrix:
        """The matrix as it was after so many steps."""
        return Matrix(steps=self.steps[:count])

    def with_step(self, step: Step) -> Matrix:
        """The matrix with one step more."""
        return Matrix(steps=(*self.steps, step))


def read_matrix(root: Path) -> Matrix:
    """Read a bank's matrix; an empty one where nothing was released yet.

    Raises:
        IntegrityError: it is damaged, or says what cannot be.
    """
    path = root / MATRIX
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Matrix(steps=())
    matrix = parse_document(data, Matrix, where=str(path), fix=_FIX)
    for place, step in enumerate(matrix.steps):
        wrong = next(_problems(place, step), None)
        if wrong is not None:
            raise IntegrityError(f"{path}: step {place}: {wrong}", fix=_FIX)
    return matrix


def write_matrix(root: Path, matrix: Matrix) -> bytes:
    """Write a bank's matrix, a step a line, and return its bytes."""
    data = dump_document({"schema": 1, "steps": [step.as_json() for step in matrix.steps]})
    path = root / MATRIX
    if not path.is_file() or path.read_bytes() != data:
        make_directory(path.parent)
        replace_file(path, data)
    return data


def kind_of(section: TaskConfig | None, *, known: bool) -> Kind:
    """What a task whose champion is new is to a bank.

    Args:
        section: its configuration; None where it is not configured any more.
        known: whether the bank has learned it before.
    """
    if known:
        return "new version"
    if section is not None and section.domain_of is not None:
        return "new domain"
    return "new task" if section is None or section.classes is None else "new classes"


def arrivals(
    before: Mapping[str, Champion], now: Mapping[str, Champion], order: Sequence[str]
) -> Iterator[tuple[str, dict[str, Champion]]]:
    """List the champions that are new one after the other, each with all of that moment.

    However many releases it took to get from ``before`` to ``now``, if none moved the same task
    twice and they went in this order, the moments are the same.

    Args:
        before: champions by task when it was looked last. Those that are gone are not served.
        now: champions by task.
        order: tasks in the order of their arrival; others follow by name.

    Yields:
        The task whose champion is new, and the champions at that moment.
    """
    standing = {task: one for task, one in before.items() if task in now}
    listed = [task for task in order if task in now]
    for task in [*listed, *sorted(now.keys() - set(listed))]:
        if task not in before or before[task].digest != now[task].digest:
            standing[task] = now[task]
            yield task, dict(sorted(standing.items()))


def matrix_of(matrix: Matrix, figure: Figure) -> AccuracyMatrix | None:
    """One figure as R, for the metrics.

    A column for each task that is served now and was measured, in the order of arrival. A task
    begins where it was measured without a gap from: one that was removed and came back, or whose
    images were not at hand, begins again.

    Returns:
        None where nothing was measured.
    """
    learned = {
        task: found
        for task in (matrix.champions if matrix.steps else ())
        if (found := _learned(matrix.steps, figure, task))
    }
    if not learned:
        return None
    tasks = tuple(sorted(learned, key=lambda task: (learned[task][0], task)))
    first = learned[tasks[0]][0]
    rows = []
    for place, step in enumerate(matrix.steps[first:], start=first):
        counts = step.of(figure)
        rows.append(
            tuple(counts[task].score if learned[task][0] <= place else None for task in tasks)
        )
    return AccuracyMatrix(
        tasks=tasks,
        rows=tuple(rows),
        learned=tuple(tuple(place - first for place in learned[task]) for task in tasks),
    )


def summary(matrix: Matrix) -> dict[str, Any]:
    """Every metric of the last step, by name; see :mod:`adapterbank.continual.metrics`.

    ``fwt`` is none of them: a bank has no answer for a task before it has learned it.
    ``intransigence`` of the routed figures is against the oracle's: each adapter was trained alone.
    """
    if not matrix.steps:
        return {"steps": 0, "tasks": 0}
    last = matrix.steps[-1]
    found: dict[str, Any] = {"steps": len(matrix.steps), "tasks": len(last.champions)}
    oracle, routed = matrix_of(matrix, "oracle"), matrix_of(matrix, "routed")
    if oracle is not None:
        found["oracle"] = summarise(oracle)
    if routed is not None:
        alone = {task: last.oracle[task].score.accuracy for task in routed.tasks}
        found["routed"] = summarise(routed, alone=alone)
        found["routing"] = _routing(matrix, last, routed.tasks)
    return found


def _routing(matrix: Matrix, last: Step, tasks: Sequence[str]) -> dict[str, Any]:
    scores = {
        task: RoutedScore(
            routed=last.routed[task].score,
            identity=last.identity[task].score,
            oracle=last.oracle[task].score,
        )
        for task in tasks
    }
    turned = [last.abstained[task].score.accuracy for task in tasks]
    found: dict[str, Any] = {
        "task_identity": task_identity(scores),
        "oracle_gap": oracle_gap(scores),
        "false_abstention": sum(turned) / len(turned),
    }
    recall = matrix_of(matrix, "identity")
    if recall is not None:
        end = recall.steps - 1
        found["interference"] = routing_interference(
            {
                task: recall.accuracy(recall.since(end, column), column)
                for column, task in enumerate(recall.tasks)
            },
            {task: recall.accuracy(end, column) for column, task in enumerate(recall.tasks)},
        )
    return found


def _learned(steps: Sequence[Step], figure: Figure, task: str) -> tuple[int, ...]:
    """Steps that learned a task since it was measured without a gap; empty if it is not now."""
    first = len(steps)
    while first > 0 and task in steps[first - 1].of(figure):
        first -= 1
    later = [place for place in range(first + 1, len(steps)) if steps[place].task == task]
    return (first, *later) if first < len(steps) else ()


def _problems(place: int, step: Step) -> Iterator[str]:
    """Find what no release writes."""
    if step.step != place:
        yield f"says it is step {step.step}"
    champion = step.champions.get(step.task)
    if champion is None or champion.version != step.version:
        yield f"{step.task}@{step.version} is none of its champions"
    for figure in FIGURES:
        for task, one in step.of(figure).items():
            if task not in step.champions:
                yield f"{figure}.{task}: it was not served"
            if one.correct > one.total:
                yield f"{figure}.{task}: {one.correct} of {one.total}"
    for task in {*step.routed, *step.identity, *step.abstained}:
        if any(task not in step.of(figure) for figure in FIGURES):
            yield f"{task} has not all figures"
        elif step.routed[task].correct > step.identity[task].correct:
            yield f"routed.{task}: more right answers than images whose task was told right"
