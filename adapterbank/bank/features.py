"""What is asked of a task's prepared images at every step, kept beside them.

Routers, reports and gates ask for the same frozen features at every step, the accuracy matrix for
the same right answers of a champion; only the first asks the backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adapterbank import durable
from adapterbank.backbones.base import Backbone
from adapterbank.bank.bank import Bank
from adapterbank.data.store import load_task, stored_digest
from adapterbank.inference.predictor import Predictor
from adapterbank.registry.versions import Version
from adapterbank.training.evaluation import Progress, extract_frozen, predict_labels

FOLDER = "frozen"


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenSplit:
    """One split under the bare backbone: features (n, L, D) float32, labels (n,) int64."""

    features: Tensor
    labels: Tensor

    @property
    def last(self) -> Tensor:
        """(n, D) after the deepest of the blocks."""
        return self.features[:, -1]


def frozen_split(
    bank: Bank,
    backbone: Backbone,
    task: str,
    split: str,
    blocks: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> FrozenSplit:
    """Return a split's frozen features, from the last time if neither images nor backbone changed.

    Args:
        bank: an open bank.
        backbone: the bank's own.
        task: a task that is prepared.
        split: ``train``, ``val`` or ``test``. Nothing may be chosen by ``test``.
        blocks: after which blocks, ascending; None: those that the bank's records are of.
        progress: told of the images, if any have to be run.

    Raises:
        InputError: the task is not prepared, or the bank asks for blocks that there are not.
    """
    path = bank.note(task, FOLDER) / f"{split}.safetensors"
    recorded = bank.config.router.recorded(backbone.traits.blocks)
    wanted = recorded if blocks is None else tuple(blocks)
    key = {"data": stored_digest(bank.data(task)), "backbone": backbone.fingerprint}
    names = [str(block) for block in wanted]
    kept = _read(path, key, (*names, "labels"))
    if kept is None:
        images = load_task(bank.data(task), spec=backbone.spec).split(split)
        run = sorted({*wanted, *recorded})  # those that are asked for next, in the same pass
        features = extract_frozen(backbone, images, run, progress)
        kept = {str(block): features[:, n].contiguous() for n, block in enumerate(run)}
        kept["labels"] = images.labels.contiguous()
        _write(path, key, kept)
    features = torch.stack([kept[name] for name in names], dim=1)
    return FrozenSplit(features=features, labels=kept["labels"])


def right_answers(bank: Bank, predictor: Predictor, version: Version) -> Tensor:
    """Tell which prepared test images a version answers right.

    Nothing may be chosen by it.

    Args:
        bank: an open bank.
        predictor: of its registry.
        version: of a task that is prepared, with the classes of the prepared data.

    Returns:
        (n,) bool, in the order of the test images.

    Raises:
        InputError: the task is not prepared.
        IntegrityError: the version is not what was published.
    """
    path = bank.note(version.task, FOLDER) / f"right-{version.digest}.safetensors"
    backbone = predictor.backbone
    key = {"data": stored_digest(bank.data(version.task)), "backbone": backbone.fingerprint}
    kept = _read(path, key, ("right",))
    if kept is None:
        test = load_task(bank.data(version.task), spec=backbone.spec).test
        _, loaded = predictor.load(f"{version.task}@sha256:{version.digest}")
        right = predict_labels(backbone, test, loaded.folded) == test.labels
        kept = {"right": right.to(torch.uint8)}
        _write(path, key, kept)
    return kept["right"].bool()


def _write(path: Path, key: dict[str, str], tensors: dict[str, Tensor]) -> None:
    durable.make_directory(path.parent)
    durable.replace_file(path, save(tensors, metadata=key))


def _read(path: Path, key: dict[str, str], names: tuple[str, ...]) -> dict[str, Tensor] | None:
    """Read what was kept; None where it is missing, damaged or of something else."""
    try:
        with safe_open(path, framework="pt") as file:
            if file.metadata() != key:
                return None
            return {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError):
        return None
