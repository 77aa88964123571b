"""What a version answers to its task's validation images, as they are prepared now."""

from __future__ import annotations

import json

from adapterbank.bank.bank import Bank
from adapterbank.bank.features import SplitLogits, adapter_logits
from adapterbank.data.base import TaskData
from adapterbank.data.store import stored_digest
from adapterbank.inference.artifact import METRICS
from adapterbank.inference.predictor import Predictor
from adapterbank.records import Score
from adapterbank.registry.manifest import check_some
from adapterbank.registry.versions import Version
from adapterbank.release.gates import Answers


def val_answers(
    bank: Bank, predictor: Predictor, version: Version, data: TaskData
) -> Answers | None:
    """Let a version answer its task's validation images.

    A version that a search led to was trained on them in the end. Its score is that of the trial
    that chose it, the same configuration trained without (``bank/plan.py``), a count only.

    Args:
        bank: an open bank.
        predictor: of its registry.
        version: of any task that is prepared.
        data: that task's, prepared.

    Returns:
        None where its classes are not those of the data, so that no comparison means anything.
    """
    _, loaded = predictor.load(f"{version.task}@{version.version}")
    if loaded.config.classes != data.classes:
        return None
    seen = loaded.config.train.get("fit") == "train+val"
    if seen and loaded.config.data.digest == stored_digest(bank.data(version.task)):
        files, _ = check_some(version.path, version.digest, (METRICS,))
        val = json.loads(files[METRICS])["val"]
        return Answers(score=Score(correct=val["correct"], total=val["total"]))
    return _answer(adapter_logits(bank, predictor.backbone, version.task, "val", loaded))


def _answer(answers: SplitLogits) -> Answers:
    confidence, _ = answers.logits.double().softmax(1).max(1)
    right = answers.right.numpy()
    return Answers(
        score=Score(correct=int(right.sum()), total=len(right)),
        right=right,
        confidence=confidence.numpy(),
    )
