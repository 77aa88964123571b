"""The accuracy matrix of a bank, ``reports/matrix.json``: a step for each champion that was new.

Counts, never percentages, each measured with the champions of that moment. The file is Git's, one
step a line, which says only what is not as it was at the step before: a value that is gone is null.
So it grows with what changes, not with tasks times steps. Metrics, tables and pictures are made of
it and can always be made again.

``oracle``: right labels of the champion on its test images; where these are not prepared here, as
the version's ``metrics.json`` has it.
``identity``: test images whose likeliest task is the true one, by the router of that moment.
``abstained``: images that the router rejects as unknown, whatever their likeliest task. ``routed``:
right answers that a user gets: the task is found, the label right and the image not rejected.
``routed_all``: right answers if no image were rejected. All are of the test images of one task.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Final, Literal, TypeVar

import numpy as np
from pydantic import ConfigDict, FailFast, Field

from adapterbank.config.bank import TaskConfig
from adapterbank.continual.metrics import AccuracyMatrix, summarise
from adapterbank.durable import make_directory, replace_file
from adapterbank.errors import IntegrityError
from adapterbank.reading import read_document
from adapterbank.records import Score
from adapterbank.registry.backbone import Sha256
from adapterbank.registry.documents import dump_document

MATRIX: Final = "reports/matrix.json"
_FIX: Final = (
    f"git checkout HEAD -- {MATRIX}, or delete it: it begins anew with the champions there are"
)

_EARLIER: Final = re.compile(rb'\s*\{\s*"schema"\s*:\s*1\s*[,}]')

Kind = Literal["new task", "new classes", "new domain", "new version"]
Figure = Literal["oracle", "routed", "routed_all", "identity", "abstained"]
FIGURES: Final[tuple[Figure, ...]] = ("oracle", "routed", "routed_all", "identity", "abstained")

_NESTED: Final[tuple[Figure, ...]] = ("routed", "routed_all", "identity")
"""Each counts some of the images that the next one counts."""

_STRICT = ConfigDict(strict=True, extra="forbid")
_Count = Annotated[int, Field(ge=0)]
_Number = Annotated[int, Field(ge=1)]
_Pair = tuple[_Count, _Number]  # so many of so many images

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The version that was served."""

    __pydantic_config__ = _STRICT
    version: _Number
    digest: Sha256


@dataclass(frozen=True, kw_only=True)
class Step:
    """One champion that was new, and what all champions of that moment reached.

    Args:
        step: its place, from 0.
        task: whose champion is new.
        version: the number of that champion.
        kind: what it was to the bank.
        champions: all that were served, by task.
        oracle: by task, see the module; the other figures likewise, but without tasks of which
            nothing could be measured. ``routed`` is missing of steps that earlier programs wrote.
        carried: tasks whose images are not prepared here, so that the router's figures are those
            of the step before.
    """

    __pydantic_config__ = _STRICT
    step: _Count
    task: str
    version: _Number
    kind: Kind
    champions: dict[str, Champion]
    oracle: dict[str, Score]
    routed: dict[str, Score]
    identity: dict[str, Score]
    abstained: dict[str, Score]
    routed_all: dict[str, Score] = field(default_factory=dict)
    carried: tuple[str, ...] = ()

    def of(self, figure: Figure) -> Mapping[str, Score]:
        """One of its figures, by task."""
        scores: Mapping[str, Score] = getattr(self, figure)
        return scores

    def mean(self, figure: Figure) -> float | None:
        """Mean accuracy over tasks; None where none was measured."""
        scores = self.of(figure).values()
        return fmean(score.accuracy for score in scores) if scores else None

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values, in a fixed order; ``carried`` only where there is any."""
        line = asdict(self)
        for name in ("champions", *FIGURES):
            line[name] = dict(sorted(line[name].items()))
        carried = list(line.pop("carried"))
        return {**line, "carried": carried} if carried else line


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """All steps so far, oldest first."""

    steps: tuple[Step, ...]

    @property
    def champions(self) -> Mapping[str, Champion]:
        """Those of the last step."""
        return self.steps[-1].champions if self.steps else {}

    def upto(self, count: int) -> Matrix:
        """The matrix as it was after so many steps."""
        return Matrix(steps=self.steps[:count])


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A step as the file has it: what is not as it was at the step before."""

    __pydantic_config__ = _STRICT
    step: _Count
    task: str
    version: _Number
    kind: Kind
    champions: dict[str, Champion | None] = field(default_factory=dict)
    oracle: dict[str, _Pair | None] = field(default_factory=dict)
    routed: dict[str, _Pair | None] = field(default_factory=dict)
    identity: dict[str, _Pair | None] = field(default_factory=dict)
    abstained: dict[str, _Pair | None] = field(default_factory=dict)
    routed_all: dict[str, _Pair | None] = field(default_factory=dict)
    carried: dict[str, Literal[True] | None] = field(default_factory=dict)

    @property
    def tasks(self) -> Collection[str]:
        """Those of which anything changed."""
        return set(self.champions).union(*(getattr(self, figure) for figure in FIGURES))


@dataclass(frozen=True, kw_only=True)
class _Document:
    __pydantic_config__ = _STRICT
    schema: Literal[2, 3]  # in 2 what is ``routed_all`` now was called ``routed``
    steps: Annotated[tuple[_Line, ...], FailFast()]


@dataclass(frozen=True, kw_only=True)
class _EarlierDocument:
    """Every step with all of its counts."""

    __pydantic_config__ = _STRICT
    schema: Literal[1]
    steps: Annotated[tuple[Step, ...], FailFast()]


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
    steps: list[tuple[Step, Collection[str]]]
    if _EARLIER.match(data):
        earlier = read_document(data, _EarlierDocument, str(path), fix=_FIX)
        steps = [
            (
                replace(step, routed={}, routed_all=step.routed),
                {t for figure in FIGURES for t in step.of(figure)},
            )
            for step in earlier.steps
        ]
    else:
        document = read_document(data, _Document, str(path), fix=_FIX)
        lines = document.steps
        if document.schema == 2:
            lines = tuple(replace(line, routed={}, routed_all=line.routed) for line in lines)
        steps = list(_unfold(lines))
    for place, (step, changed) in enumerate(steps):
        wrong = next(_problems(place, step, changed), None)
        if wrong is not None:
            raise IntegrityError(f"{path}: step {place}: {wrong}", fix=_FIX)
    return Matrix(steps=tuple(step for step, _ in steps))


def write_matrix(root: Path, matrix: Matrix) -> bytes:
    """Write a bank's matrix, a step a line, and return its bytes."""
    data = dump_document({"schema": 3, "steps": list(_fold(matrix.steps))})
    path = root / MATRIX
    if not path.is_file() or path.read_bytes() != data:
        make_directory(path.parent)
        replace_file(path, data)
    return data


def _fold(steps: Iterable[Step]) -> Iterator[dict[str, Any]]:
    """Say of each step what is not as it was at the step before."""
    before: dict[str, Mapping[str, Any]] = {}
    for step in steps:
        now: dict[str, Mapping[str, Any]] = {
            "champions": step.champions,
            **{figure: step.of(figure) for figure in FIGURES},
            "carried": dict.fromkeys(step.carried, True),
        }
        line: dict[str, Any] = {
            "step": step.step, "task": step.task, "version": step.version, "kind": step.kind,
        }  # fmt: skip
        for name, values in now.items():
            changes = {
                task: _as_line(values.get(task)) for task in _changed(before.get(name, {}), values)
            }
            if changes:
                line[name] = changes
        yield line
        before = now


def _unfold(lines: Iterable[_Line]) -> Iterator[tuple[Step, Collection[str]]]:
    """Give each step with all of its counts, and the tasks of which anything changed."""
    champions: dict[str, Champion] = {}
    scores: dict[str, dict[str, Score]] = {figure: {} for figure in FIGURES}
    carried: dict[str, Literal[True]] = {}
    for line in lines:
        champions = _with_changes(champions, line.champions)
        for figure in FIGURES:
            pairs: Mapping[str, _Pair | None] = getattr(line, figure)
            changes = {
                task: None if pair is None else Score(correct=pair[0], total=pair[1])
                for task, pair in pairs.items()
            }
            scores[figure] = _with_changes(scores[figure], changes)
        carried = _with_changes(carried, line.carried)
        step = Step(
            step=line.step,
            task=line.task,
            version=line.version,
            kind=line.kind,
            champions=champions,
            **scores,
            carried=tuple(sorted(carried)),
        )
        yield step, line.tasks


def _as_line(value: Champion | Score | Literal[True] | None) -> object:
    if isinstance(value, Score):
        return [value.correct, value.total]
    return asdict(value) if isinstance(value, Champion) else value


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys that have another value or none, sorted."""
    return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))


def _with_changes(before: dict[str, T], changes: Mapping[str, T | None]) -> dict[str, T]:
    """A copy with other values; those that are None are gone. The same where nothing changes."""
    if not changes:
        return before
    after = before.copy()
    for key, value in changes.items():
        if value is None:
            after.pop(key, None)
        else:
            after[key] = value
    return after


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
    standing = {task: champion for task, champion in before.items() if task in now}
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
    served = matrix.champions if matrix.steps else ()
    measured = {task: _learned(matrix.steps, figure, task) for task in served}
    learned = {task: places for task, places in measured.items() if places}
    if not learned:
        return None
    tasks = tuple(sorted(learned, key=lambda task: (learned[task][0], task)))
    first = learned[tasks[0]][0]
    counts = np.zeros((2, len(matrix.steps) - first, len(tasks)), dtype=np.int64)
    for column, task in enumerate(tasks):
        begun = learned[task][0]
        scores = [step.of(figure)[task] for step in matrix.steps[begun:]]
        counts[0, begun - first :, column] = [score.correct for score in scores]
        counts[1, begun - first :, column] = [score.total for score in scores]
    return AccuracyMatrix(
        tasks=tasks,
        correct=counts[0],
        total=counts[1],
        learned=tuple(tuple(place - first for place in learned[task]) for task in tasks),
    )


def summary(matrix: Matrix) -> dict[str, Any]:
    """Every metric of the last step, by name; see :mod:`adapterbank.continual.metrics`.

    ``intransigence`` of the routed figures is against the oracle's: each adapter was trained alone.
    """
    if not matrix.steps:
        return {"steps": 0, "tasks": 0}
    last = matrix.steps[-1]
    figures: dict[str, Any] = {"steps": len(matrix.steps), "tasks": len(last.champions)}
    oracle, routed = matrix_of(matrix, "oracle"), matrix_of(matrix, "routed")
    if oracle is not None:
        figures["oracle"] = summarise(oracle)
    accepting = matrix_of(matrix, "routed_all")
    if accepting is not None:
        figures["routed_all"] = summarise(accepting)
    if routed is not None:
        alone = {task: last.oracle[task].accuracy for task in routed.tasks}
        figures["routed"] = summarise(routed, alone=alone)
        figures["routing"] = _routing(matrix, last, routed.tasks)
    return figures


def _routing(matrix: Matrix, last: Step, tasks: Sequence[str]) -> dict[str, Any]:
    """What choosing the task costs, in shares of images."""
    figures: dict[str, Any] = {
        "task_identity": fmean(last.identity[task].accuracy for task in tasks),
        "oracle_gap": fmean(last.oracle[t].accuracy - last.routed[t].accuracy for t in tasks),
        "false_abstention": fmean(last.abstained[task].accuracy for task in tasks),
    }
    recall = matrix_of(matrix, "identity")
    if recall is not None:  # recall lost since a task was learned: all that such a bank forgets
        lost = (recall.at_first[-1] - recall.accuracy[-1]).tolist()
        figures["interference"] = dict(sorted(zip(recall.tasks, lost, strict=True)))
    return figures


def _learned(steps: Sequence[Step], figure: Figure, task: str) -> tuple[int, ...]:
    """Steps that learned a task since it was measured without a gap; empty if it is not now."""
    first = len(steps)
    while first > 0 and task in steps[first - 1].of(figure):
        first -= 1
    later = [place for place in range(first + 1, len(steps)) if steps[place].task == task]
    return (first, *later) if first < len(steps) else ()


def _problems(place: int, step: Step, changed: Collection[str]) -> Iterator[str]:
    """Find what no release writes, among the tasks of which anything changed."""
    if step.step != place:
        yield f"says it is step {step.step}"
    champion = step.champions.get(step.task)
    if champion is None or champion.version != step.version:
        yield f"{step.task}@{step.version} is none of its champions"
    for task in sorted(changed):
        scores = {figure: step.of(figure)[task] for figure in FIGURES if task in step.of(figure)}
        for figure, score in scores.items():
            if task not in step.champions:
                yield f"{figure}.{task}: it was not served"
            if not 0 <= score.correct <= score.total or not score.total:
                yield f"{figure}.{task}: {score.correct} of {score.total}"
        missing = {*FIGURES} - {"routed"} - scores.keys()
        if missing and scores.keys() - {"oracle"}:
            yield f"{task} has not all figures"
        for less, more in pairwise(_NESTED):
            if {less, more} <= scores.keys() and scores[less].correct > scores[more].correct:
                yield f"{less}.{task}: more images than {more}"
