"""Frozen features of a task's prepared images, kept beside them.

Routers, reports and gates ask for the same features at every step; only the first asks the
backbone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adapterbank import durable
from adapterbank.backbones.base import Backbone
from adapterbank.continual.bank import Bank
from adapterbank.data.store import load_task, stored_digest
from adapterbank.training.evaluation import Progress, extract_features

__all__ = ["FrozenSplit", "frozen_split"]

FOLDER = "frozen"


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenSplit:
    """One split under the bare backbone: features (n, D) float32, labels (n,) int64."""

    features: Tensor
    labels: Tensor


def frozen_split(
    bank: Bank, backbone: Backbone, task: str, split: str, progress: Progress | None = None
) -> FrozenSplit:
    """Return a split's frozen features, from the last time if neither images nor backbone changed.

    Args:
        bank: an open bank.
        backbone: the bank's own.
        task: a task that is prepared.
        split: ``train``, ``val`` or ``test``. Nothing may be chosen by ``test``.
        progress: told of the images, if any have to be run.

    Raises:
        InputError: the task is not prepared.
    """
    path = bank.note(task, FOLDER) / f"{split}.safetensors"
    key = {"data": stored_digest(bank.data(task)), "backbone": backbone.fingerprint}
    kept = _read(path, key)
    if kept is not None:
        return kept
    images = load_task(bank.data(task), spec=backbone.spec).split(split)
    found = FrozenSplit(
        features=extract_features(backbone, images, progress=progress).contiguous(),
        labels=images.labels.contiguous(),
    )
    durable.make_directory(path.parent)
    packed = save({"features": found.features, "labels": found.labels}, metadata=key)
    durable.replace_file(path, packed)
    return found


def _read(path: Path, key: dict[str, str]) -> FrozenSplit | None:
    """Read what was kept; None where it is missing, damaged or of something else."""
    try:
        with safe_open(path, framework="pt") as file:
            if file.metadata() != key:
                return None
            return FrozenSplit(
                features=file.get_tensor("features"), labels=file.get_tensor("labels")
            )
    except (OSError, SafetensorError):
        return None
