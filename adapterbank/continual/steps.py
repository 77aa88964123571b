"""What ``release`` adds to the accuracy matrix: a step for each champion that is new.

A step is measured with the champions of its moment, so one release of five tasks and five of one
write the same rows. Everything else is made of the matrix: the metrics
(``reports/continual.json``), DVC's plots (``accuracy_matrix.csv``, ``accuracy_curve.csv``) and a
run of MLflow's experiment ``bank``.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adapterbank.bank.bank import Bank, write_json
from adapterbank.bank.features import adapter_logits, frozen_split
from adapterbank.continual.matrix import (
    FIGURES,
    Champion,
    Figure,
    Matrix,
    Step,
    arrivals,
    kind_of,
    read_matrix,
    summary,
    write_matrix,
)
from adapterbank.data.store import stored_digest
from adapterbank.durable import replace_file
from adapterbank.errors import AdapterBankError, InputError, IntegrityError
from adapterbank.inference.artifact import ADAPTER_CONFIG, METRICS
from adapterbank.inference.champions import champions
from adapterbank.inference.predictor import Predictor
from adapterbank.inference.router_versions import RouterPlan
from adapterbank.integrations.mlflow.matrix import show_matrix
from adapterbank.records import Score
from adapterbank.registry.adapter_config import parse_adapter_config
from adapterbank.registry.manifest import check_some
from adapterbank.registry.metrics import read_metrics
from adapterbank.registry.summary import score_of
from adapterbank.registry.versions import Version
from adapterbank.routing.router import Router
from adapterbank.text import csv_text

Marks = NDArray[np.bool_]

SUMMARY: Final = "reports/continual.json"
TABLE: Final = "reports/accuracy_matrix.csv"
CURVE: Final = "reports/accuracy_curve.csv"
_ROUTER_FIGURES: Final[tuple[Figure, ...]] = ("routed", "routed_all", "identity", "abstained")


def record_steps(bank: Bank, predictor: Predictor) -> list[tuple[str, str | None]]:
    """Add the steps that the matrix lacks, and let everything made of it follow.

    Nothing is done where no champion is new, but to show MLflow what it does not show yet.

    Args:
        bank: an open bank.
        predictor: of its registry.

    Returns:
        What went wrong, each with what mends it; nothing if all went well.
    """
    try:
        before = read_matrix(bank.root)
        matrix = _grow(bank, predictor, before)
    except AdapterBankError as error:
        return [(f"the accuracy matrix does not follow: {error.message}", error.fix)]
    data = write_matrix(bank.root, matrix)
    _write_reports(bank.root, matrix)
    if not matrix.steps:
        return []
    new = range(len(before.steps), len(matrix.steps)) or [len(matrix.steps) - 1]
    digest = hashlib.sha256(data).hexdigest()
    try:
        show_matrix(
            bank.root,
            digest=digest,
            table=_table(matrix),
            metrics=lambda: {step + 1: _flat(summary(matrix.upto(step + 1))) for step in new},
        )
    except (AdapterBankError, OSError) as error:
        reason = getattr(error, "message", str(error))
        return [(f"MLflow does not show the accuracy matrix: {reason}", None)]
    return []


def _grow(bank: Bank, predictor: Predictor, matrix: Matrix) -> Matrix:
    now = {
        version.task: Champion(version=version.version, digest=version.digest)
        for version in champions(bank.registry)
    }
    new = list(arrivals(matrix.champions, now, list(bank.config.tasks)))
    if not new:
        return matrix
    measuring = _Measuring(bank, predictor)
    for task, moment in new:
        matrix = Matrix(steps=(*matrix.steps, measuring.measure(matrix, task, moment)))
    return matrix


class _Measuring:
    """Measures steps; each version's files are read once, whatever the number of steps."""

    def __init__(self, bank: Bank, predictor: Predictor) -> None:
        self._bank = bank
        self._predictor = predictor
        self._plan = RouterPlan.of(bank.registry, bank.config.router)
        self._files: dict[str, dict[str, bytes]] = {}  # by digest

    def measure(self, matrix: Matrix, task: str, moment: Mapping[str, Champion]) -> Step:
        """Measure all champions of one moment, the newest of which is ``task``'s."""
        versions = {
            name: self._bank.registry.resolve(f"{name}@sha256:{champion.digest}")
            for name, champion in moment.items()
        }
        router = self._router(versions)
        last = matrix.steps[-1] if matrix.steps else None
        scores: dict[str, dict[str, Score]] = {figure: {} for figure in FIGURES}
        carried = []
        for name, version in versions.items():
            right = self._right(version) if self._is_prepared(version) else None
            # Of images that are not here there is nothing but its own word.
            oracle = _oracle(self._read(version)) if right is None else _count(right)
            if oracle is None:
                continue
            scores["oracle"][name] = oracle
            if router is None or name == self._plan.aside:
                continue
            if right is not None:
                for figure, score in self._judge(router, version, right).items():
                    scores[figure][name] = score
            elif (
                last is not None and name in last.identity and moment[name] == last.champions[name]
            ):
                for figure in _ROUTER_FIGURES:
                    if name in last.of(figure):  # earlier programs knew fewer
                        scores[figure][name] = last.of(figure)[name]
                carried.append(name)
        return Step(
            step=len(matrix.steps),
            task=task,
            version=moment[task].version,
            kind=kind_of(
                self._bank.config.tasks.get(task), known=task in {s.task for s in matrix.steps}
            ),
            champions=dict(moment),
            **scores,
            carried=tuple(carried),
        )

    def _read(self, version: Version) -> dict[str, bytes]:
        if version.digest not in self._files:
            names = (ADAPTER_CONFIG, METRICS)
            self._files[version.digest], _ = check_some(version.path, version.digest, names)
        return self._files[version.digest]

    def _router(self, versions: Mapping[str, Version]) -> Router | None:
        """The router that serves these versions; None where none has a record that gives one."""
        records = {}
        for task, version in versions.items():
            with contextlib.suppress(InputError):  # of an earlier layout
                record = self._plan.read(version)
                if record is not None:
                    records[task] = record[0]
        try:
            return self._plan.build(records)
        except InputError:  # nothing scatters; ``release`` has said so of the router itself
            return None

    def _is_prepared(self, version: Version) -> bool:
        """Whether the images that the version was made for are prepared here."""
        config = parse_adapter_config(self._read(version)[ADAPTER_CONFIG])
        try:
            return stored_digest(self._bank.data(version.task)) == config.data.digest
        except InputError:
            return False

    def _right(self, version: Version) -> Marks:
        """(n,) whether it answers each test image right, its task being told."""
        task = version.task
        _, loaded = self._predictor.load(f"{task}@sha256:{version.digest}")
        answers = adapter_logits(self._bank, self._predictor.backbone, task, "test", loaded)
        right: Marks = answers.right.numpy()
        return right

    def _judge(self, router: Router, version: Version, right: Marks) -> dict[Figure, Score]:
        bank, task, backbone = self._bank, version.task, self._predictor.backbone
        test = frozen_split(bank, backbone, task, "test", router.blocks)
        judgement = router.judge(test.features.numpy(), backbone=backbone.fingerprint)
        place = router.tasks.index(task) if task in router.tasks else -1  # never recognised
        recognised = judgement.chosen == place
        found, rejected = recognised & right, judgement.p_values <= router.alpha
        marks = (found & ~rejected, found, recognised, rejected)
        return {
            figure: _count(marked) for figure, marked in zip(_ROUTER_FIGURES, marks, strict=True)
        }


def _count(marks: Marks) -> Score:
    return Score(correct=int(marks.sum()), total=len(marks))


def _oracle(files: Mapping[str, bytes]) -> Score | None:
    """What a version reached on its test images; None where its figures do not say."""
    with contextlib.suppress(IntegrityError, KeyError):
        return score_of(read_metrics(files[METRICS], where=METRICS), "test")
    return None


def _write_reports(root: Path, matrix: Matrix) -> None:
    write_json(root / SUMMARY, _rounded(summary(matrix)))
    for name, rows in ((TABLE, _table(matrix)), (CURVE, _curve(matrix))):
        replace_file(root / name, csv_text(rows).encode())


def _table(matrix: Matrix) -> list[tuple[Any, ...]]:
    """A row for each task at each step, shares in [0, 1]; empty where nothing was measured."""
    rows: list[tuple[Any, ...]] = [("step", "learned", "kind", "task", "version", *FIGURES)]
    for step in matrix.steps:
        for task, champion in sorted(step.champions.items()):
            scores = [step.of(figure).get(task) for figure in FIGURES]
            shares = [None if score is None else round(score.accuracy, 6) for score in scores]
            rows.append((step.step + 1, step.task, step.kind, task, champion.version, *shares))
    return rows


def _curve(matrix: Matrix) -> list[tuple[Any, ...]]:
    """The mean over tasks of each figure after each step."""
    rows: list[tuple[Any, ...]] = [("step", "learned", "tasks", *FIGURES)]
    for step in matrix.steps:
        means = [step.mean(figure) for figure in FIGURES]
        shares = [None if mean is None else round(mean, 6) for mean in means]
        rows.append((step.step + 1, step.task, len(step.champions), *shares))
    return rows


def _rounded(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _rounded(value)
        if isinstance(value, Mapping)
        else round(value, 6)
        if isinstance(value, float)
        else value
        for name, value in content.items()
    }


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers of nested sections by their path, as MLflow names metrics."""
    flat: dict[str, float] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = float(value)
    return flat
