"""Measuring a registered version on its task's prepared images, whenever somebody asks."""

from __future__ import annotations

from dataclasses import dataclass

from adapterbank.bank.bank import Bank
from adapterbank.bank.features import adapter_logits
from adapterbank.data.store import load_task, stored_digest
from adapterbank.errors import InputError
from adapterbank.inference.predictor import Predictor
from adapterbank.records import Score
from adapterbank.registry.versions import Version
from adapterbank.training.evaluation import Progress, score


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a version answers on one split."""

    version: Version
    split: str
    score: Score
    loss: float  # mean cross-entropy, nats
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]  # rows are true classes
    same_data: bool  # whether the split is of the data the version was trained on


def measure(
    bank: Bank,
    ref: str,
    *,
    split: str = "test",
    device: str | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Run a version over ``val`` or ``test`` of its task's data; no device means the bank's.

    Raises:
        InputError: the data is not prepared, or has other classes than the version.
        IntegrityError: the version or the backbone is not what was published.
        UnknownName: no such task, version or alias.
    """
    predictor = Predictor(bank.registry, device=device or bank.config.device)
    version = bank.registry.resolve(ref)
    data = load_task(bank.data(version.task), spec=bank.registry.backbone().spec)
    _, loaded = predictor.load(version)
    if loaded.config.classes != data.classes:
        raise InputError(
            f"{version} tells {len(loaded.config.classes)} classes apart, the prepared data has"
            f" {len(data.classes)} or others of that name: no figure would mean anything",
            fix=f"adapterbank show {version}, and adapterbank task show {version.task}",
        )
    logits = adapter_logits(bank, predictor.backbone, version.task, split, loaded, progress)
    answers = score(logits.logits, logits.labels)
    return Measurement(
        version=version,
        split=split,
        score=answers.score,
        loss=answers.loss,
        classes=data.classes,
        confusion=tuple(map(tuple, answers.confusion.tolist())),
        same_data=stored_digest(bank.data(version.task)) == loaded.config.data.digest,
    )
