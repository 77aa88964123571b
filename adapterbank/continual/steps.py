"""What ``release`` adds to the accuracy matrix: a step for each champion that is new.

A step is measured with the champions of its moment, so one release of five tasks and five of one
write the same rows. Everything else is made of the matrix: the metrics
(``reports/continual.json``), DVC's plots (``accuracy_matrix.csv``, ``accuracy_curve.csv``) and a
run of MLflow's experiment ``bank``.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adapterbank.bank.bank import Bank, write_json
from adapterbank.bank.features import frozen_split, right_answers
from adapterbank.continual.matrix import (
    FIGURES,
    Champion,
    Matrix,
    Right,
    Step,
    arrivals,
    kind_of,
    read_matrix,
    summary,
    write_matrix,
)
from adapterbank.data.store import stored_digest
from adapterbank.durable import replace_file
from adapterbank.errors import AdapterBankError, InputError
from adapterbank.inference.artifact import ADAPTER_CONFIG, METRICS, ROUTING
from adapterbank.inference.champions import champions
from adapterbank.inference.predictor import Predictor
from adapterbank.inference.router_versions import RouterPlan
from adapterbank.integrations.mlflow.matrix import show_matrix
from adapterbank.records import Score
from adapterbank.registry.adapter_config import parse_adapter_config
from adapterbank.registry.manifest import check_some
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from adapterbank.routing.record import read_record
from adapterbank.routing.router import Router

SUMMARY: Final = "reports/continual.json"
TABLE: Final = "reports/accuracy_matrix.csv"
CURVE: Final = "reports/accuracy_curve.csv"


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """The router's figures of one task at one step."""

    routed: Right
    identity: Right
    abstained: Right


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
    for task, held in arrivals(matrix.champions, now, list(bank.config.tasks)):
        matrix = matrix.with_step(_measure(bank, predictor, matrix, task, held))
    return matrix


def _measure(
    bank: Bank,
    predictor: Predictor,
    matrix: Matrix,
    task: str,
    held: Mapping[str, Champion],
) -> Step:
    """Measure all champions of one moment."""
    registry = bank.registry
    versions = {name: _version(registry, name, one) for name, one in held.items()}
    files = {name: _files(version) for name, version in versions.items()}
    plan = RouterPlan.of(registry, bank.config.router)
    router = _router(plan, files)
    last = matrix.steps[-1] if matrix.steps else None
    found: dict[str, _Measured] = {}
    carried = []
    oracle = {name: right for name, one in files.items() if (right := _oracle(one)) is not None}
    for name, version in versions.items():
        if router is None or name not in oracle or name == plan.aside:
            continue
        if _is_prepared(bank, name, files[name]):
            found[name] = _judge(bank, predictor, router, version)
        elif last is not None and name in last.routed and held[name] == last.champions[name]:
            found[name] = _Measured(
                routed=last.routed[name],
                identity=last.identity[name],
                abstained=last.abstained[name],
            )
            carried.append(name)
    return Step(
        step=len(matrix.steps),
        task=task,
        version=held[task].version,
        kind=kind_of(bank.config.tasks.get(task), known=task in {s.task for s in matrix.steps}),
        champions=dict(held),
        oracle=oracle,
        routed={name: one.routed for name, one in found.items()},
        identity={name: one.identity for name, one in found.items()},
        abstained={name: one.abstained for name, one in found.items()},
        carried=tuple(carried),
    )


def _version(registry: Registry, task: str, champion: Champion) -> Version:
    return registry.resolve(f"{task}@sha256:{champion.digest}")


def _files(version: Version) -> dict[str, bytes]:
    files, _ = check_some(version.path, version.digest, (ADAPTER_CONFIG, METRICS, ROUTING))
    return files


def _oracle(files: Mapping[str, bytes]) -> Right | None:
    """What a version reached on its test images; None where its figures do not say."""
    try:
        test = json.loads(files[METRICS])["test"]
        return Right(correct=test["correct"], total=test["total"])
    except (KeyError, TypeError, ValueError):
        return None


def _router(plan: RouterPlan, files: Mapping[str, Mapping[str, bytes]]) -> Router | None:
    """The router that serves these versions; None where none has a record that gives one."""
    records = {}
    for task, content in files.items():
        if ROUTING in content:
            with contextlib.suppress(InputError):  # of an earlier layout
                records[task] = read_record(content[ROUTING], where=f"{task}/{ROUTING}")
    try:
        return plan.build(records)
    except InputError:  # nothing scatters; ``release`` has said so of the router itself
        return None


def _is_prepared(bank: Bank, task: str, files: Mapping[str, bytes]) -> bool:
    """Whether the images that the version was made for are prepared here."""
    config = parse_adapter_config(files[ADAPTER_CONFIG])
    try:
        return stored_digest(bank.data(task)) == config.data.digest
    except InputError:
        return False


def _judge(bank: Bank, predictor: Predictor, router: Router, version: Version) -> _Measured:
    task, backbone = version.task, predictor.backbone
    features = frozen_split(bank, backbone, task, "test", router.blocks).features.numpy()
    found = router.judge(features, backbone=backbone.fingerprint)
    place = router.tasks.index(task) if task in router.tasks else -1  # never told right
    told = found.chosen == place
    right = right_answers(bank, predictor, version).numpy()
    turned = found.p_values <= router.alpha
    total = len(features)
    return _Measured(
        routed=Right(correct=int((told & right).sum()), total=total),
        identity=Right(correct=int(told.sum()), total=total),
        abstained=Right(correct=int(turned.sum()), total=total),
    )


def _write_reports(root: Path, matrix: Matrix) -> None:
    write_json(root / SUMMARY, _rounded(summary(matrix)))
    for name, rows in ((TABLE, _table(matrix)), (CURVE, _curve(matrix))):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        replace_file(root / name, text.getvalue().encode())


def _table(matrix: Matrix) -> list[tuple[Any, ...]]:
    """A row for each task at each step, shares in [0, 1]; empty where nothing was measured."""
    rows: list[tuple[Any, ...]] = [("step", "learned", "kind", "task", "version", *FIGURES)]
    for step in matrix.steps:
        for task, champion in sorted(step.champions.items()):
            counts = [step.of(figure).get(task) for figure in FIGURES]
            shares = [None if one is None else round(one.score.accuracy, 6) for one in counts]
            rows.append(
                (step.step + 1, step.task, step.kind, task, champion.version, *shares)
            )  # fmt: skip
    return rows


def _curve(matrix: Matrix) -> list[tuple[Any, ...]]:
    """The mean over tasks of each figure after each step."""
    rows: list[tuple[Any, ...]] = [("step", "learned", "tasks", *FIGURES)]
    for step in matrix.steps:
        means = [_mean([one.score for one in step.of(figure).values()]) for figure in FIGURES]
        rows.append((step.step + 1, step.task, len(step.champions), *means))
    return rows


def _mean(scores: Sequence[Score]) -> float | None:
    return round(sum(one.accuracy for one in scores) / len(scores), 6) if scores else None


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
    found: dict[str, float] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}/")
        else:
            found[f"{prefix}{name}"] = float(value)
    return found
