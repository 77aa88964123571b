"""The ``evaluate`` stage: a trained adapter measured, and the files of its version completed.

What a stage hashes into a version never contains a time, a path or a run id; those go to MLflow
and to ``work/<task>/run.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from adapterbank import durable
from adapterbank.backbones.loading import pick_device
from adapterbank.bank.bank import Bank, write_json
from adapterbank.bank.features import adapter_logits, frozen_split
from adapterbank.data.store import load_task, stored_digest
from adapterbank.errors import InputError, IntegrityError
from adapterbank.inference.artifact import (
    ADAPTER_CONFIG,
    ADAPTER_MODEL,
    METRICS,
    ROUTING,
    add_metrics,
    load_adapter,
)
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.integrations.figures import confusion, png
from adapterbank.integrations.mlflow.runs import open_run
from adapterbank.model.threads import computing_with
from adapterbank.pipeline.notes import PROBE, VAL, figures, run_id
from adapterbank.reading import read_tensors
from adapterbank.registry.checks import CANARY
from adapterbank.registry.metrics import read_metrics
from adapterbank.registry.seen import SEEN
from adapterbank.text import csv_text
from adapterbank.training.evaluation import Progress, score

CONFUSION = "confusion.csv"


def evaluate(bank: Bank, task: str, progress: Progress | None = None) -> dict[str, Any]:
    """Judge a trained adapter, complete the files of its version, and log the figures.

    Nothing before this stage reads the test images. After it only a release may decide by them,
    where too few validation images are left that no version has learned from, and says so.

    Returns:
        What becomes the version's ``metrics.json``.
    """
    settings = bank.config.training(task)
    backbone = load_bank_backbone(bank.registry, pick_device(settings.device))
    data = load_task(bank.data(task), spec=backbone.spec)
    trained = _read_trained(bank, task)
    where = f"work/{task}/trained"
    stored, chosen_by = trained.pop(PROBE), _chosen_by(trained.pop(VAL), f"{where}/{VAL}")
    loaded = load_adapter(trained, backbone, where=where)
    probe = _probe(stored, (len(loaded.config.classes), backbone.traits.width), f"{where}/{PROBE}")
    digest = stored_digest(bank.data(task))
    if loaded.config.data.digest != digest:
        raise InputError(
            f"work/{task}/trained was trained on data {loaded.config.data.digest[:12]}, the"
            f" prepared data is {digest[:12]}: its test figure would mean nothing",
            fix=f"dvc repro evaluate@{task}",
        )
    answers = adapter_logits(bank, backbone, task, "test", loaded, progress)
    test = score(answers.logits, answers.labels)
    frozen = frozen_split(bank, backbone, task, "test", progress=progress)
    with computing_with(settings.threads):
        scores = functional.linear(frozen.last, probe["weight"], probe["bias"])
    probe_test = score(scores, frozen.labels)
    method, head = loaded.parameters
    metrics = {
        "val": chosen_by["val"],
        "test": figures(test),
        "linear_probe": {"val": chosen_by["linear_probe"], "test": asdict(probe_test.score)},
        "parameters": {"method": method, "head": head},
        "bytes": len(trained[ADAPTER_MODEL]),
    }
    durable.replace_directory(bank.version(task), add_metrics(trained, metrics))
    write_json(bank.note(task, METRICS), metrics)
    matrix = test.confusion.numpy()
    _write_confusion(bank.note(task, CONFUSION), matrix, data.classes)
    _log_evaluation(bank, task, metrics, png(confusion(matrix, data.classes)))
    return metrics


def _read_trained(bank: Bank, task: str) -> dict[str, bytes]:
    folder, fix = bank.trained(task), f"dvc repro train@{task}"
    names: tuple[str, ...] = (ADAPTER_MODEL, ADAPTER_CONFIG, CANARY, ROUTING, PROBE, VAL)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: not trained yet, {missing[0]} is missing", fix=fix)
    if (folder / SEEN).is_file():  # what earlier programs trained has none
        names = (*names, SEEN)
    return {name: (folder / name).read_bytes() for name in names}


def _probe(data: bytes, shape: tuple[int, int], where: str) -> dict[str, Tensor]:
    """Read the weights (C, D) and biases (C,) of the linear probe."""
    tensors = read_tensors(data, where)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != {"weight": shape, "bias": shape[:1]}:
        raise IntegrityError(f"{where} holds {shapes}, expected a probe of {shape}")
    return {name: torch.from_numpy(tensor).float() for name, tensor in tensors.items()}


def _chosen_by(data: bytes, where: str) -> dict[str, Any]:
    content = read_metrics(data, where=where)
    missing = sorted({"val", "linear_probe"} - content.keys())
    if missing:
        raise IntegrityError(f"{where} lacks {missing[0]}")
    return content


def _write_confusion(path: Path, matrix: NDArray[np.int64], classes: Sequence[str]) -> None:
    """One row for each test image, as DVC's confusion template counts them."""
    rows = [["actual", "predicted"]]
    for (actual, predicted), count in np.ndenumerate(matrix):
        rows += [[classes[actual], classes[predicted]]] * int(count)
    durable.replace_file(path, csv_text(rows).encode())  # a link into DVC's cache stays as it is


def _log_evaluation(bank: Bank, task: str, metrics: Mapping[str, Any], figure: bytes) -> None:
    with open_run(bank.root, experiment=task, name=f"{task} evaluation", params={},
                  run_id=run_id(bank, task)) as run:  # fmt: skip
        for name in ("val", "test"):
            probe = metrics["linear_probe"][name]
            best = "_of_best_trial" if "by" in metrics[name] else ""  # a search chose by it
            run.epoch(0, {
                f"final/{name}_accuracy{best}": metrics[name]["correct"] / metrics[name]["total"],
                f"final/{name}_linear_probe": probe["correct"] / probe["total"],
            })  # fmt: skip
        run.figure("confusion.png", figure)
        run.json("metrics.json", dict(metrics))
        run.files(bank.version(task), "adapter")
