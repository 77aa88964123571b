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
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from adapterbank.backbones.loading import parse_arch
from adapterbank.backbones.timm_vit import TimmViT, build_vit
from adapterbank.config.bank import TrainConfig
from adapterbank.data.base import Split, TaskData
from adapterbank.errors import InputError, TrainingDiverged
from adapterbank.inference.artifact import build_adapter, pack_adapter
from adapterbank.methods.base import Adapter
from adapterbank.records import InputSpec
from adapterbank.search.ledger import HEADS, training_file
from adapterbank.search.space import split_values
from adapterbank.search.storage import Storage
from adapterbank.training.checkpoint import FILE, Checkpointer, code_digest, identify
from adapterbank.training.loop import start_head, train
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


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all trials of all tasks have in common; large things lie in the object store."""

    arch: str
    spec: InputSpec
    fingerprint: str
    state: Any  # reference to {name: array}
    briefs: Mapping[str, Brief]
    splits: Mapping[str, Any]  # by task, references to {split/part: array}


def share(
    arch: str, spec: InputSpec, fingerprint: str, state: Mapping[str, torch.Tensor],
    work: Mapping[str, tuple[Brief, TaskData]],
) -> Shared:  # fmt: skip
    """Put a backbone and the images of tasks into the object store, once."""
    return Shared(
        arch=arch,
        spec=spec,
        fingerprint=fingerprint,
        state=ray.put({name: tensor.numpy() for name, tensor in state.items()}),
        briefs={task: brief for task, (brief, _) in work.items()},
        splits={
            task: ray.put(
                {
                    "train/images": data.train.images.numpy(),
                    "train/labels": data.train.labels.numpy(),
                    "val/images": data.val.images.numpy(),
                    "val/labels": data.val.labels.numpy(),
                }
            )
            for task, (_, data) in work.items()
        },
    )


def run_trial(config: Mapping[str, Any], shared: Mapping[str, Shared]) -> None:
    """Train one configuration and report every epoch.

    Args:
        config: ``task``, ``number`` and ``values`` of the trial.
        shared: under ``all``, see :class:`Shared`.
    """
    everything = shared["all"]
    brief = everything.briefs[config["task"]]
    torch.set_num_threads(max(1, int(_resources().get("CPU", 1))))
    hyper, settings = split_values(config["values"])
    training = TrainConfig.model_validate({**brief.training, **settings})
    device = _device()
    storage, name = Storage(brief.storage), training_file(config["number"])
    with tempfile.TemporaryDirectory(prefix="trial-") as folder:
        kept = storage.read(name)
        if kept is not None:
            Path(folder, FILE).write_bytes(kept)
        identity = _identity(brief, config["values"], everything.fingerprint, device)
        checkpoint = Checkpointer.open(Path(folder), identity)
        past = checkpoint.found.epochs if checkpoint.found is not None else ()
        for epoch in past:  # a scheduler that was restarted hears all of it again
            _report(epoch)
        if len(past) >= training.epochs:
            return
        backbone = _backbone(everything, str(device))
        data = _data(everything, brief)
        adapter = build_adapter(
            brief.method, {**brief.hyper, **hyper}, backbone.traits, len(brief.classes),
            seed=brief.seed, where=f"trial {config['number']} of {brief.task}",
        )  # fmt: skip
        recipe = find_recipe(training, brief.method)
        if recipe.head == "ridge" and not past:
            _start_head(storage, backbone, data, adapter, brief)
            recipe = replace(recipe, head="as_built")
        sink = _Sink(storage, name, Path(folder, FILE))
        try:
            train(backbone, data, adapter, recipe, training, seed=brief.seed, sinks=(sink,),
                  checkpoint=checkpoint)  # fmt: skip
        except TrainingDiverged as error:
            tune.report({"epoch": len(past) + sink.epochs + 1, "accuracy": 0.0,
                         "diverged": error.message})  # fmt: skip


class _Sink:
    """Keep the state of an epoch where it outlives this node, then report the epoch."""

    def __init__(self, storage: Storage, name: str, file: Path) -> None:
        self._storage = storage
        self._name = name
        self._file = file
        self.epochs = 0

    def step(self, done: int, total: int) -> None:
        """Nothing."""

    def epoch(self, epoch: Epoch) -> None:
        """Keep and report; the loop has written the checkpoint."""
        self._storage.write(self._name, self._file.read_bytes())
        self.epochs += 1
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
    storage: Storage, backbone: TimmViT, data: TaskData, adapter: Adapter, brief: Brief
) -> None:
    """Start the head from ridge regression, or from what another trial's regression gave.

    Trials that differ in how they optimise start from the same untrained adapter, so from the
    same features: their head is fitted once.
    """
    key = identify({"adapter": _digest(adapter), "data": brief.data, "device": str(
        backbone.device)})  # fmt: skip
    name = f"{HEADS}/{key}.safetensors"
    known = storage.read(name)
    if known is None:
        adapter.to(backbone.device)
        start_head(backbone, data, adapter)
        head = {"weight": adapter.head.weight, "bias": adapter.head.bias}
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in head.items()}
        storage.write(name, save_tensors(plain))
        return
    state = load_tensors(known)
    with torch.no_grad():
        adapter.head.weight.copy_(state["weight"])
        adapter.head.bias.copy_(state["bias"])


def _identity(
    brief: Brief, values: Mapping[str, Any], fingerprint: str, device: torch.device
) -> str:
    return identify(
        {
            "values": dict(values),
            "hyper": brief.hyper,
            "train": brief.training,
            "method": brief.method,
            "seed": brief.seed,
            "data": brief.data,
            "backbone": fingerprint,
            "device": device.type,
            "code": code_digest(),
        }
    )


def _digest(adapter: Adapter) -> str:
    return identify({"adapter": pack_adapter(adapter).hex()})


def _backbone(shared: Shared, device: str) -> TimmViT:
    return _build(shared.state, shared.arch, shared.spec, shared.fingerprint, device)


@lru_cache(maxsize=1)  # a worker process runs many trials, one after the other
def _build(state: Any, arch: str, spec: InputSpec, fingerprint: str, device: str) -> TimmViT:  # noqa: ANN401
    if device != "cpu":
        torch.backends.cudnn.allow_tf32 = False  # as everywhere, see load_bank_backbone
    tensors = {name: _tensor(array) for name, array in ray.get(state).items()}
    name, options = parse_arch(arch)
    return build_vit(name, options, tensors, spec, fingerprint).to(device)


def _data(shared: Shared, brief: Brief) -> TaskData:
    arrays = ray.get(shared.splits[brief.task])
    train, val = (
        Split(images=_tensor(arrays[f"{name}/images"]), labels=_tensor(arrays[f"{name}/labels"]))
        for name in ("train", "val")
    )
    # The test images never leave the driver: no trial could choose by them.
    return TaskData(classes=brief.classes, train=train, val=val, test=val, source="", notes="")


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
