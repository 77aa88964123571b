"""What a killed training needs to go on to the same bits: one file, replaced in one step.

The file has a checksum, since a flipped bit would not stop a training, only change its outcome.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked
from torch import Tensor, nn

from adapterbank import durable
from adapterbank.errors import IntegrityError
from adapterbank.reading import read_document
from adapterbank.training.checked import pack_checked, unpack_checked
from adapterbank.training.sinks import Epoch

FILE = "training.safetensors"
_LIMIT = 1 << 32  # bytes; the largest adapters have a few million parameters
_DAMAGED = (ValueError, IntegrityError)
_RATE = "full_rate"

States = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a training after a whole epoch."""

    taken: int  # steps: the position in the schedule
    epochs: tuple[Epoch, ...]  # so far
    adapter: Mapping[str, Tensor]
    optimizer: States  # by parameter, then by the optimiser's own name
    generators: Mapping[str, Tensor]  # uint8 states


@checked(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class _Document:
    """What of a checkpoint is not a tensor."""

    schema: int
    identity: str
    taken: int
    epochs: tuple[Epoch, ...]
    run_id: str | None


class Checkpointer:
    """The folder in which one training keeps its state until it is finished.

    One training of a task runs at a time, as ``dvc repro`` ensures; so whatever temporary file
    lies in the folder when a training opens it is a dead one's.

    Attributes:
        state: the state to go on from; None starts from nothing.
        run_id: id of the run that logs this training; kept with each checkpoint.
    """

    def __init__(
        self, directory: Path, identity: str, state: Checkpoint | None, run_id: str | None
    ) -> None:
        self._directory = directory
        self._identity = identity
        self.state = state
        self.run_id = run_id

    @classmethod
    def open(
        cls, directory: Path, identity: str, note: Callable[[str], None] | None = None
    ) -> Self:
        """Look for the checkpoint of a training that did not finish.

        A checkpoint is a saving of time and no more, so one that is damaged or another training's
        is passed over instead of stopping anybody.

        Args:
            directory: made when the first checkpoint is saved.
            identity: of the training, see :func:`identify`.
            note: called with a sentence where a checkpoint is not used.
        """
        path = directory / FILE
        if directory.is_dir():
            with durable.writable(directory):
                durable.remove_temporaries(directory)
        try:
            tensors, text = unpack_checked(durable.read_file(path, limit=_LIMIT))
            document = read_document(text, _Document, "its state")
        except FileNotFoundError:
            return cls(directory, identity, None, None)
        except _DAMAGED as error:
            reason = f"The checkpoint {path} is damaged ({error})"
        else:
            if document.identity == identity:
                return cls(directory, identity, _join(document, tensors), document.run_id)
            reason = f"The checkpoint {path} is of a training with other data, settings or code"
        if note is not None:
            note(f"{reason}: starting from the beginning")
        return cls(directory, identity, None, None)

    def save(self, checkpoint: Checkpoint) -> None:
        """Put a checkpoint in place of the last one; killed at any moment, one of them is there.

        Raises:
            AdapterBankError: the disk is full or read-only.
        """
        document = _Document(
            schema=1,
            identity=self._identity,
            taken=checkpoint.taken,
            epochs=checkpoint.epochs,
            run_id=self.run_id,
        )
        with durable.writable(self._directory):
            durable.make_directory(self._directory)
            text = json.dumps(asdict(document), allow_nan=False)
            durable.replace_file(self._directory / FILE, pack_checked(_flat(checkpoint), text))

    def discard(self) -> None:
        """Remove what is kept: the training has finished, or has nothing to go on to."""
        with durable.writable(self._directory):
            if self._directory.exists():
                shutil.rmtree(self._directory)


def identify(parts: Mapping[str, Any]) -> str:
    """Hash everything that decides the result of a training, given as JSON values."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def states_of(optimizer: torch.optim.Optimizer, adapter: nn.Module) -> States:
    """Copy an optimiser's state by parameter, and its full rate, which may be of the start's scale.

    The optimiser has one group for each parameter, in the adapter's order.
    """
    return {
        name: {
            **{
                key: value.detach().cpu().clone()
                for key, value in optimizer.state.get(parameter, {}).items()
                if isinstance(value, Tensor)
            },
            _RATE: torch.tensor(group["initial_lr"], dtype=torch.float64),
        }
        for (name, parameter), group in zip(
            adapter.named_parameters(), optimizer.param_groups, strict=True
        )
    }


def restore(optimizer: torch.optim.Optimizer, adapter: nn.Module, states: States) -> None:
    """Give an optimiser, one group for each parameter in the adapter's order, its state back."""
    names = [name for name, _ in adapter.named_parameters()]
    plain = optimizer.state_dict()
    # Cloned: the optimiser works in place, and the states may be needed once more.
    own = [{key: t.clone() for key, t in states[name].items() if key != _RATE} for name in names]
    plain["state"] = {i: state for i, state in enumerate(own) if state}
    for name, group in zip(names, plain["param_groups"], strict=True):
        group["initial_lr"] = states[name][_RATE].item()
    optimizer.load_state_dict(plain)


def _flat(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Name every tensor by where it belongs; parameters have dots in their names, no slashes."""
    states: Iterable[tuple[str, Tensor]] = (
        (f"optimizer/{key}/{name}", tensor)
        for name, state in checkpoint.optimizer.items()
        for key, tensor in state.items()
    )
    adapter = ((f"adapter//{name}", tensor) for name, tensor in checkpoint.adapter.items())
    generators = ((f"generator//{name}", tensor) for name, tensor in checkpoint.generators.items())
    return {name: tensor.contiguous() for name, tensor in chain(adapter, states, generators)}


def _join(document: _Document, tensors: Mapping[str, Tensor]) -> Checkpoint:
    adapter: dict[str, Tensor] = {}
    generators: dict[str, Tensor] = {}
    optimizer: dict[str, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        kind, key, name = path.split("/")
        if kind == "optimizer":
            optimizer.setdefault(name, {})[key] = tensor
        else:
            (adapter if kind == "adapter" else generators)[name] = tensor
    return Checkpoint(
        taken=document.taken,
        epochs=document.epochs,
        adapter=adapter,
        optimizer=optimizer,
        generators=generators,
    )
