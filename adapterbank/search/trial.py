"""One trial: what runs in a worker process of the cluster.

It gets the backbone and the images from the object store, where every worker of a node reads the
same memory, and leaves two things: reports to Tune after each epoch, and its training's state in
the storage. It knows no registry and no MLflow.
"""

from __future__ import annotations

import platform
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import tune
from safetensors.torch import save as save_tensors

from adapterbank.backbones.identity import parse_arch
from adapterbank.backbones.timm_vit import TimmViT, build_vit
from adapterbank.config.bank import TrainConfig
from adapterbank.data.base import Split, TaskData, TrainingData
from adapterbank.errors import InputError, IntegrityError, TrainingDiverged
from adapterbank.inference.artifact import build_adapter, pack_adapter
from adapterbank.methods.base import Adapter
from adapterbank.model.threads import computing_with
from adapterbank.reading import Tensors, read_tensors
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.search.ledger import HEADS, training_file
from adapterbank.search.space import split_values
from adapterbank.search.storage import Storage
from adapterbank.training.checkpoint import FILE, Checkpointer, identify
from adapterbank.training.code import code_digest
from adapterbank.training.loop import soften, start_head, train
from adapterbank.training.recipes import find_recipe
from adapterbank.training.sinks import Epoch


@dataclass(frozen=True, kw_only=True)
class Brief:
    """What all trials of one task have in common."""

    task: str
    method: str
    hyper: dict[str, Any]  # what the task pins
    training: dict[str, Any]  # a TrainConfig
    seed: int
    classes: tuple[str, ...]
    data: str  # digest
    storage: str  # URI of the search's folder


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialData:
    """What a trial is trained and judged on; test images never leave the driver."""

    classes: tuple[str, ...]
    train: Split
    val: Split


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all trials of one task have in common; large things lie in the object store."""

    backbone: BackboneRecord
    weights: Any  # of the backbone, see share
    brief: Brief
    splits: Any  # of the task, see share


def share(tensors: Mapping[str, torch.Tensor]) -> Any:  # noqa: ANN401  # a reference of Ray's
    """Put tensors into the object store, which keeps them as long as somebody refers to them."""
    return ray.put({name: tensor.numpy() for name, tensor in tensors.items()})


def share_images(data: TaskData) -> Any:  # noqa: ANN401  # as above
    """Put a task's images into the object store, but no test image: no trial could choose by it."""
    return share(
        {
            "train/images": data.train.images,
            "train/labels": data.train.labels,
            "val/images": data.val.images,
            "val/labels": data.val.labels,
        }
    )


def run_trial(config: Mapping[str, Any], shared: Mapping[str, Shared]) -> None:
    """Train the configuration that Tune hands to this worker and report every epoch.

    Args:
        config: ``number`` and ``values`` of the configuration.
        shared: under ``task``, what all trials have in common.
    """
    device, task = _device(), shared["task"]
    threads = computing_with(task.brief.training["threads"])  # of Ray's, which sets its own
    with threads, tempfile.TemporaryDirectory(prefix="trial-") as folder:
        configuration = _Configuration(config, task, device, Path(folder))
        configuration.report_past()
        if not configuration.trained:
            configuration.train(_backbone(task, device), _data(task))


class _Configuration:
    """One configuration's training: its settings, its state in the storage, its reports.

    It is the sink of its own training, which tells it of every epoch.

    Args:
        config: see :func:`run_trial`.
        task: see there.
        device: of the training.
        folder: on this node, for the checkpoint at work.
    """

    def __init__(
        self, config: Mapping[str, Any], task: Shared, device: torch.device, folder: Path
    ) -> None:
        self._number = int(config["number"])
        self._brief = task.brief
        self._hyper, settings = split_values(config["values"])
        self._settings = TrainConfig.model_validate({**task.brief.training, **settings})
        self._storage = Storage(task.brief.storage)
        self._file = folder / FILE
        kept = self._storage.read(training_file(self._number))
        if kept is not None:
            self._file.write_bytes(kept)
        identity = _identity(task, config["values"], device)
        self._checkpoint = Checkpointer.open(folder, identity)
        resumed = self._checkpoint.state
        self._past = resumed.epochs if resumed is not None else ()

    @property
    def trained(self) -> bool:
        """Whether nothing is left to train."""
        return len(self._past) >= self._settings.epochs

    def report_past(self) -> None:
        """Report what an earlier worker trained: a new scheduler must hear all of it again."""
        for epoch in self._past:
            _report(epoch)

    def train(self, backbone: TimmViT, data: TrialData) -> None:
        """Train from where the state in the storage ends."""
        brief = self._brief
        adapter = build_adapter(
            brief.method, {**brief.hyper, **self._hyper}, backbone.traits, len(brief.classes),
            seed=brief.seed, where=f"trial {self._number} of {brief.task}",
        )  # fmt: skip
        recipe = find_recipe(self._settings, brief.method)
        if recipe.head == "ridge" and not self._past:
            softened = soften(recipe, self._settings, len(data.train))
            _start_head(self._storage, backbone, data, adapter, brief, softened)
            recipe = replace(recipe, head="as_built")
        try:
            train(backbone, data, adapter, recipe, self._settings, seed=brief.seed,
                  sinks=(self,), checkpoint=self._checkpoint)  # fmt: skip
        except TrainingDiverged as error:
            tune.report({"epoch": len(self._past) + 1, "accuracy": 0.0,
                         "diverged": error.message})  # fmt: skip

    def step(self, done: int, total: int) -> None:
        """Nothing."""

    def epoch(self, epoch: Epoch) -> None:
        """Keep what the loop has just saved where it outlives this node, then report the epoch."""
        self._storage.write(training_file(self._number), self._file.read_bytes())
        self._past = (*self._past, epoch)
        _report(epoch)


def _report(epoch: Epoch) -> None:
    tune.report(
        {
            "epoch": epoch.number,
            "accuracy": epoch.val.accuracy,
            "correct": epoch.val.correct,
            "total": epoch.val.total,
            "val_loss": epoch.val_loss,
            "loss": epoch.loss,
            "seconds": epoch.seconds,
        }
    )


def _start_head(
    storage: Storage,
    backbone: TimmViT,
    data: TrainingData,
    adapter: Adapter,
    brief: Brief,
    softened: float,
) -> None:
    """Start the head from ridge regression, or from what another trial's regression gave.

    Trials that differ in how they optimise start from the same untrained adapter, so from the
    same features: their head is fitted once.
    """
    untrained = identify({"adapter": pack_adapter(adapter).hex()})
    where = {"data": brief.data, "device": str(backbone.device)}
    key = identify({"adapter": untrained, "softened": softened, **where})
    name = f"{HEADS}/{key}.safetensors"
    state = _kept_head(storage, name, adapter)
    if state is None:
        adapter.to(backbone.device)
        start_head(backbone, data, adapter, softened=softened)
        head = {"weight": adapter.head.weight, "bias": adapter.head.bias}
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in head.items()}
        storage.write(name, save_tensors(plain))
        return
    with torch.no_grad():
        adapter.head.weight.copy_(torch.from_numpy(state["weight"]))
        adapter.head.bias.copy_(torch.from_numpy(state["bias"]))


def _kept_head(storage: Storage, name: str, adapter: Adapter) -> Tensors | None:
    """Read a head that another trial fitted; None where there is none, or it is damaged."""
    expected = {"weight": adapter.head.weight.shape, "bias": adapter.head.bias.shape}
    try:
        state = read_tensors(storage.read(name) or b"", name)
    except IntegrityError:
        return None
    return state if {key: tensor.shape for key, tensor in state.items()} == expected else None


def _identity(task: Shared, values: Mapping[str, Any], device: torch.device) -> str:
    brief = task.brief
    return identify(
        {
            "values": dict(values),
            "hyper": brief.hyper,
            "train": brief.training,
            "method": brief.method,
            "seed": brief.seed,
            "data": brief.data,
            "backbone": task.backbone.fingerprint,
            "device": device.type,
            "code": code_digest(brief.method),
        }
    )


def _backbone(task: Shared, device: torch.device) -> TimmViT:
    return _build(task.weights, task.backbone, str(device))


@lru_cache(maxsize=1)  # a worker process runs many trials, one after the other
def _build(weights: Any, record: BackboneRecord, device: str) -> TimmViT:  # noqa: ANN401
    if device != "cpu":
        torch.backends.cudnn.allow_tf32 = False  # as everywhere, see load_bank_backbone
    tensors = {name: _tensor(array) for name, array in ray.get(weights).items()}
    name, options = parse_arch(record.arch)
    return build_vit(name, options, tensors, record.spec, record.fingerprint).to(device)


def _data(task: Shared) -> TrialData:
    arrays = ray.get(task.splits)
    train, val = (
        Split(images=_tensor(arrays[f"{name}/images"]), labels=_tensor(arrays[f"{name}/labels"]))
        for name in ("train", "val")
    )
    return TrialData(classes=task.brief.classes, train=train, val=val)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """Look at an array of the object store as a tensor: the same memory, never to be written."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _device() -> torch.device:
    """Return the device that Ray gave to this trial.

    Raises:
        InputError: it is a GPU that PyTorch cannot use; of a node that joined late, or it would
            have been refused before.
    """
    if not _resources().get("GPU", 0):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(
            f"PyTorch sees no GPU on {platform.node()}, where Ray gave one to the trial",
            fix="install a PyTorch with CUDA there, or --gpus-per-trial 0",
        )
    return torch.device("cuda")


def _resources() -> dict[str, float]:
    assigned: dict[str, float] = ray.get_runtime_context().get_assigned_resources()
    return assigned
