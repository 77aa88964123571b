"""What the backbone gives for a task's prepared images, computed once and kept beside them.

``work/<task>/cache`` has the frozen features of each split, and the logits of each adapter on a
split. ``train`` and ``evaluate`` fill it; gates, the accuracy matrix and reports read it. Each
file is of one state of the images, one backbone, one kind of device, one number of threads and one
code (with PyTorch's and timm's versions), is checked by a hash when it is read, and is computed
anew where it is missing, damaged or of something else: the folder may be deleted at any time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapterbank import durable
from adapterbank.backbones.base import Backbone
from adapterbank.bank.bank import Bank
from adapterbank.data.store import load_task, stored_digest
from adapterbank.errors import IntegrityError
from adapterbank.inference.artifact import LoadedAdapter
from adapterbank.model.threads import computing_with
from adapterbank.registry.adapter_config import AdapterConfig
from adapterbank.training.checked import pack_checked, unpack_checked
from adapterbank.training.code import code_digest
from adapterbank.training.evaluation import Progress, extract_frozen, split_logits

FOLDER = "cache"
_LIMIT = 1 << 34  # bytes of one file
_LABELS = "labels"
_LOGITS = "logits"


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenSplit:
    """One split under the bare backbone: features (n, L, D) float32, labels (n,) int64."""

    features: Tensor
    labels: Tensor

    @property
    def last(self) -> Tensor:
        """(n, D) after the deepest of the blocks."""
        return self.features[:, -1]


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitLogits:
    """One split under an adapter: logits (n, C) float32, labels (n,) int64."""

    logits: Tensor
    labels: Tensor

    @property
    def right(self) -> Tensor:
        """(n,) bool, whether each image is answered right."""
        return self.logits.argmax(1) == self.labels


def frozen_split(
    bank: Bank,
    backbone: Backbone,
    task: str,
    split: str,
    blocks: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> FrozenSplit:
    """Return a split's frozen features; blocks that are not kept yet are run and kept.

    Args:
        bank: an open bank.
        backbone: the bank's own.
        task: a task that is prepared.
        split: ``train``, ``val`` or ``test``. No training or search may look at ``test``.
        blocks: after which blocks, ascending; None: those that the bank's records are of.
        progress: called with the images done, if any have to be run.

    Raises:
        InputError: the task is not prepared, or the bank asks for blocks that there are not.
    """
    depth = backbone.traits.blocks
    wanted = bank.config.router.recorded(depth) if blocks is None else tuple(blocks)
    names = [str(block) for block in wanted]
    path = bank.note(task, FOLDER) / f"frozen-{split}.safetensors"
    key = _key(bank, backbone, task)
    stored = _read(path, key)
    if stored is None or not stored.keys() >= {*names, _LABELS}:
        images = load_task(bank.data(task), spec=backbone.spec).split(split)
        run = sorted({*wanted, depth})  # the deepest always: its pass rounds all others alike
        with computing_with(key["threads"]):
            features = extract_frozen(backbone, images, run, progress)
        computed = {str(block): features[:, n] for n, block in enumerate(run)}
        stored = (stored or {}) | computed | {_LABELS: images.labels}
        _write(bank, task, path, key, stored)
    features = torch.stack([stored[name] for name in names], dim=1)
    return FrozenSplit(features=features, labels=stored[_LABELS])


def adapter_logits(
    bank: Bank,
    backbone: Backbone,
    task: str,
    split: str,
    adapter: LoadedAdapter,
    progress: Progress | None = None,
) -> SplitLogits:
    """Return an adapter's logits on a split; they are run and kept if they are not yet.

    Args:
        bank: an open bank.
        backbone: the bank's own.
        task: a task that is prepared, with the adapter's classes.
        split: ``val`` or ``test``. No training or search may look at ``test``.
        adapter: a version's, or one that is to become a version.
        progress: called with the images done, if they have to be run.

    Raises:
        InputError: the task is not prepared.
    """
    path = _logits_path(bank, task, split, adapter.digest)
    key = _adapter_key(bank, backbone, task, adapter.digest, adapter.config.method.name)
    stored = _read(path, key)
    if stored is None:
        images = load_task(bank.data(task), spec=backbone.spec).split(split)
        with computing_with(key["threads"]):
            logits = split_logits(backbone, images, adapter.folded, progress)
        stored = {_LOGITS: logits, _LABELS: images.labels}
        _write(bank, task, path, key, stored)
    return SplitLogits(logits=stored[_LOGITS], labels=stored[_LABELS])


def keep_logits(
    bank: Bank,
    backbone: Backbone,
    split: str,
    adapter: str,
    config: AdapterConfig,
    logits: SplitLogits,
) -> None:
    """Keep logits that training computed, to the bit those of :func:`adapter_logits`.

    Args:
        bank: an open bank.
        backbone: what gave them.
        split: of the data that the adapter was trained on.
        adapter: digest of the adapter, see :func:`~adapterbank.inference.artifact.adapter_digest`.
        config: the adapter's.
        logits: on all images of the split, in their order.
    """
    task = config.task
    key = _adapter_key(bank, backbone, task, adapter, config.method.name)
    tensors = {_LOGITS: logits.logits, _LABELS: logits.labels}
    key["data"] = config.data.digest
    _write(bank, task, _logits_path(bank, task, split, adapter), key, tensors)


def _logits_path(bank: Bank, task: str, split: str, adapter: str) -> Path:
    return bank.note(task, FOLDER) / f"logits-{split}-{adapter}.safetensors"


def _key(bank: Bank, backbone: Backbone, task: str) -> dict[str, Any]:
    """All that decides what the backbone gives for a task's images on one machine."""
    config = bank.config
    training = config.training(task) if task in config.tasks else config.active.train
    return {
        "schema": 2,
        "data": stored_digest(bank.data(task)),
        "backbone": backbone.fingerprint,
        "device": backbone.device.type,
        "threads": training.threads,
        "code": _code(None),
    }


def _adapter_key(
    bank: Bank, backbone: Backbone, task: str, adapter: str, method: str
) -> dict[str, Any]:
    return _key(bank, backbone, task) | {"adapter": adapter, "code": _code(method)}


@cache
def _code(method: str | None) -> str:
    return code_digest(method)  # of the code that runs: once a process


def _write(
    bank: Bank, task: str, path: Path, key: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    if stored_digest(bank.data(task)) != key["data"]:
        return  # somebody has prepared other images meanwhile
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with suppress(OSError):  # a full or read-only disk costs time, not the answer
        durable.make_directory(path.parent)
        durable.replace_file(path, pack_checked(plain, json.dumps(key, sort_keys=True)))


def _read(path: Path, key: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Read what was kept; None where it is missing, damaged or of something else."""
    try:
        tensors, text = unpack_checked(durable.read_file(path, limit=_LIMIT))
    except (FileNotFoundError, IntegrityError):
        return None
    return tensors if text == json.dumps(key, sort_keys=True) else None
