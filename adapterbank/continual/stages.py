"""The stages of a bank but training: backbone, prepare, evaluate, register.

What a stage hashes into a version never contains a time, a path or a run id; those go to MLflow
and to ``work/<task>/run.json``.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch.nn import functional

from adapterbank import durable
from adapterbank.backbones.loading import load, pick_device
from adapterbank.backbones.sources import fetch
from adapterbank.continual.bank import Bank, read_json, write_json
from adapterbank.continual.frozen import frozen_split
from adapterbank.continual.ready import PREPARED, backbone_is_ready, parameters
from adapterbank.continual.verdicts import verdict_tags
from adapterbank.data.base import SPLITS, Limits
from adapterbank.data.sources import load_source
from adapterbank.data.store import load_task, save_task, stored_digest
from adapterbank.data.subset import take_classes
from adapterbank.errors import FetchError, InputError, IntegrityError, TrainingDiverged
from adapterbank.inference.artifact import (
    ADAPTER_CONFIG,
    ADAPTER_MODEL,
    CANARY,
    METRICS,
    ROUTING,
    add_metrics,
    load_adapter,
)
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.integrations.figures import confusion_png
from adapterbank.integrations.mlflow_mirror import mirror_version
from adapterbank.integrations.mlflow_runs import open_run
from adapterbank.registry.adapter_config import (
    parse_adapter_config,
)
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.manifest import MANIFEST
from adapterbank.registry.publish import save_weights
from adapterbank.registry.store import Version
from adapterbank.training.evaluation import Evaluation, Progress, score
from adapterbank.training.evaluation import evaluate as evaluate_split

__all__ = [
    "PROBE",
    "RUN",
    "VAL",
    "WARM_START",
    "evaluate",
    "fetch_backbone",
    "figures",
    "mirror",
    "prepare",
    "register",
]

PROBE = "probe.safetensors"
VAL = "val.json"
RUN = "run.json"
WARM_START = "warm_start"  # key of what training says of one, where the task asks for it
REGISTERED = "registered.json"
CONFUSION = "confusion.csv"


def fetch_backbone(bank: Bank, *, force: bool = False) -> BackboneRecord:
    """Put the bank's backbone in place, and say in the registry what it is.

    Args:
        bank: an open bank.
        force: fetch again although the weights are there and right.

    Raises:
        AdapterBankError: the disk is full or read-only.
        ConflictError: the registry has versions of another backbone.
        FetchError: it could not be downloaded.
    """
    registry, section = bank.registry, bank.config.backbone
    weights = registry.backbone_weights
    if weights.exists() and not force and _is_fetched(bank):
        return registry.backbone()
    source = fetch(section.uri, root=bank.root)
    spec = section.spec(source.mean, source.std)
    backbone = load(source, spec)
    record = BackboneRecord(
        uri=source.uri,
        arch=source.arch,
        spec=spec,
        fingerprint=backbone.fingerprint,
        traits=backbone.traits,
    )
    registry.set_backbone(record)  # refuses before any weights are replaced
    state = {name: tensor.contiguous() for name, tensor in source.state.items()}
    save_weights(registry.root, save(state))
    return record


def prepare(bank: Bank, task: str, progress: Progress | None = None) -> dict[str, Any]:
    """Decode a task's images to the bank's input size and write its splits.

    Returns:
        Source, digest, classes and counts.
    """
    section = bank.config.task(task)
    spec = bank.registry.backbone().spec
    limits = Limits(**bank.config.active.limits.model_dump())
    data = load_source(
        section.data,
        spec=spec,
        limits=limits if section.classes is None else Limits(),
        seed=section.seed,
        root=bank.root,
        progress=progress,
    )
    if section.classes is not None:
        data = take_classes(data, section.classes, limits=limits, seed=section.seed)
    digest = save_task(data, bank.data(task), spec)
    found = {
        "task": task,
        "source": data.source,
        "digest": digest,
        "classes": len(data.classes),
        "counts": {name: len(data.split(name)) for name in SPLITS},
        "notes": data.notes,
    }
    write_json(bank.note(task, PREPARED), {**found, "parameters": parameters(bank, task)})
    return found


def evaluate(bank: Bank, task: str, progress: Progress | None = None) -> dict[str, Any]:
    """Judge a trained adapter, complete the files of its version, and log the figures.

    Nothing before this stage reads the test images, and nothing after it chooses by them.

    Returns:
        What becomes the version's ``metrics.json``.
    """
    device = pick_device(bank.config.training(task).device)
    backbone = load_bank_backbone(bank.registry, device)
    data = load_task(bank.data(task), spec=backbone.spec)
    trained = _read_trained(bank, task)
    probe = load_tensors(trained.pop(PROBE))
    chosen_by = json.loads(trained.pop(VAL))
    loaded = load_adapter(trained, backbone, where=f"work/{task}/trained")
    digest = stored_digest(bank.data(task))
    if loaded.config.data.digest != digest:
        raise InputError(
            f"work/{task}/trained was trained on data {loaded.config.data.digest[:12]}, the"
            f" prepared data is {digest[:12]}: its test figure would mean nothing",
            fix=f"dvc repro evaluate@{task}",
        )
    test = evaluate_split(backbone, data.test, loaded.folded, progress)
    frozen = frozen_split(bank, backbone, task, "test", progress=progress).last
    probe_test = score(functional.linear(frozen, probe["weight"], probe["bias"]), data.test.labels)
    method, head = loaded.parameters
    metrics = {
        "val": chosen_by["val"],
        "test": figures(test),
        "linear_probe": {"val": chosen_by["linear_probe"], "test": asdict(probe_test.score)},
        "parameters": {"method": method, "head": head},
        "bytes": len(trained[ADAPTER_MODEL]),
        **{key: chosen_by[key] for key in (WARM_START,) if key in chosen_by},
    }
    durable.replace_directory(bank.version(task), add_metrics(trained, metrics))
    write_json(bank.note(task, METRICS), metrics)
    confusion = test.confusion.numpy()
    _write_confusion(bank.note(task, CONFUSION), confusion, data.classes)
    _log_evaluation(bank, task, metrics, confusion_png(confusion, data.classes))
    return metrics


def register(bank: Bank, task: str) -> Version:
    """Publish the evaluated version and mirror it to MLflow. Equal bytes are one version.

    Raises:
        InputError: ``evaluate`` has not run.
        AdapterBankError: MLflow did not answer; the version is registered all the same, and
            running the stage again finishes the mirror.
    """
    directory = bank.version(task)
    if not directory.is_dir():
        raise InputError(f"{directory}: not there yet", fix=f"dvc repro evaluate@{task}")
    version = bank.registry.register_directory(directory, task=task, reason="dvc repro")
    mirror(bank, version, run_id=_run_id(bank, task))
    write_json(bank.note(task, REGISTERED), {"task": task, "version": version.version,
                                             "digest": version.digest})  # fmt: skip
    return version


def figures(answers: Evaluation) -> dict[str, Any]:
    """Counts and loss of a split, as a version's ``metrics.json`` states them.

    Raises:
        TrainingDiverged: the loss is NaN or infinite.
    """
    if not math.isfinite(answers.loss):
        raise TrainingDiverged(
            f"the adapter's mean loss is {answers.loss:g} on {answers.score.total} images",
            fix="lower train.learning_rate of the task in pipelines/params.yaml",
        )
    return {**asdict(answers.score), "loss": round(answers.loss, 6)}


def mirror(bank: Bank, version: Version, *, run_id: str | None = None) -> None:
    """Show a registered version in MLflow's model registry."""
    content = bank.registry.read(version)
    config = parse_adapter_config(content[ADAPTER_CONFIG])
    mirror_version(
        bank.root, version.task, version.version, version.digest,
        hashlib.md5(content[MANIFEST], usedforsecurity=False).hexdigest(),
        tags={
            "kind": "adapter",
            "method": config.method.name,
            "backbone": config.backbone.fingerprint,
            "data": config.data.digest,
            "path": str(version.path.relative_to(bank.root)),
            **verdict_tags(bank.registry.history(version.task), version.version),
            **({"parents": " ".join(config.parents)} if config.parents else {}),
        },
        run_id=run_id,
    )  # fmt: skip


def _is_fetched(bank: Bank) -> bool:
    """Whether the weights in place are what the configuration asks for."""
    try:
        record = bank.registry.backbone()
        load(bank.registry.backbone_weights, record.spec, arch=record.arch,
             expected=record.fingerprint)  # fmt: skip
    except (FetchError, IntegrityError):
        return False
    return backbone_is_ready(bank)


def _read_trained(bank: Bank, task: str) -> dict[str, bytes]:
    folder, fix = bank.trained(task), f"dvc repro train@{task}"
    names = (ADAPTER_MODEL, ADAPTER_CONFIG, CANARY, ROUTING, PROBE, VAL)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: not trained yet, {missing[0]} is missing", fix=fix)
    return {name: (folder / name).read_bytes() for name in names}


def _write_confusion(path: Path, matrix: NDArray[np.int64], classes: Sequence[str]) -> None:
    """One row for each test image, as DVC's confusion template counts them."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["actual", "predicted"])
        for (actual, predicted), count in np.ndenumerate(matrix):
            writer.writerows([[classes[actual], classes[predicted]]] * int(count))


def _log_evaluation(bank: Bank, task: str, metrics: Mapping[str, Any], figure: bytes) -> None:
    with open_run(bank.root, experiment=task, name=f"{task} evaluation", params={},
                  run_id=_run_id(bank, task)) as run:  # fmt: skip
        for name in ("val", "test"):
            probe = metrics["linear_probe"][name]
            run.epoch(0, {
                f"final/{name}_accuracy": metrics[name]["correct"] / metrics[name]["total"],
                f"final/{name}_linear_probe": probe["correct"] / probe["total"],
            })  # fmt: skip
        run.figure("confusion.png", figure)
        run.json("metrics.json", dict(metrics))
        run.files(bank.version(task), "adapter")


def _run_id(bank: Bank, task: str) -> str | None:
    path = bank.note(task, RUN)
    return read_json(path, fix=f"dvc repro train@{task}")["run_id"] if path.exists() else None
