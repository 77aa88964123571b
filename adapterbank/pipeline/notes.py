"""What stages leave for one another in ``work/<task>``, and the figures they state."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from adapterbank.bank.bank import RUN, Bank, read_run
from adapterbank.errors import TrainingDiverged
from adapterbank.training.evaluation import Evaluation

PROBE = "probe.safetensors"
VAL = "val.json"


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


def run_id(bank: Bank, task: str) -> str | None:
    """The MLflow run of a task's training, if it has been trained."""
    return read_run(bank, task).run_id if bank.note(task, RUN).exists() else None
