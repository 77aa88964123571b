"""The only training loop: one adapter, one task, a frozen backbone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from adapterbank import model
from adapterbank.backbones.base import Backbone
from adapterbank.config import TrainConfig
from adapterbank.data.base import TaskData
from adapterbank.data.images import normalise
from adapterbank.errors import TrainingDiverged
from adapterbank.methods.base import Adapter, Dropout
from adapterbank.records import Score
from adapterbank.training.evaluation import Evaluation, Progress, evaluate, extract_features
from adapterbank.training.recipes import Recipe, build_optimizer
from adapterbank.training.ridge import HEAD_SCALE, fit_ridge

__all__ = ["Epoch", "Sink", "TrainResult", "train"]

_LOWER_RATE = "lower train.learning_rate of the task in pipelines/params.yaml"


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one pass over the training images gave."""

    number: int  # from 1
    loss: float  # mean training loss, nats
    train: Score  # answers given while training, so with dropout
    val: Score
    val_loss: float
    rate: float  # fraction of the full learning rate at the last step
    seconds: float


class Sink(Protocol):
    """Whoever wants to know how training goes: a logger, a progress bar, a scheduler."""

    def step(self, done: int, total: int) -> None:
        """Called after each training step."""

    def epoch(self, epoch: Epoch) -> None:
        """Called after each epoch."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A trained adapter and how it came about."""

    adapter: Adapter
    epochs: tuple[Epoch, ...]
    val: Evaluation


def train(  # noqa: PLR0913  # each is a choice of the caller's
    backbone: Backbone,
    data: TaskData,
    adapter: Adapter,
    recipe: Recipe,
    settings: TrainConfig,
    *,
    seed: int,
    sinks: Sequence[Sink] = (),
    progress: Progress | None = None,
) -> TrainResult:
    """Train an adapter in place and judge it on validation images after every epoch.

    The last epoch's weights are the result: nothing is selected on any figure. Equal arguments
    give equal bits on one machine's CPU; attention's backward on a GPU promises no order of sums.

    Args:
        backbone: frozen.
        data: splits of the task; the test split is not read.
        adapter: at its start.
        recipe: how to optimise.
        settings: epochs and batch size.
        seed: of the data's order and of dropout.
        sinks: told of every step and epoch.
        progress: told of the images that the head's start is fitted to.

    Raises:
        TrainingDiverged: a loss or a gradient is NaN or infinite; the error's ``last_good`` holds
            the state after the last whole epoch (of the start, in the first).
    """
    adapter.to(backbone.device)
    if recipe.head == "ridge":
        _start_head(backbone, data, adapter, progress)
    run = _Run(backbone, data, adapter, recipe, settings, seed)
    epochs = tuple(run.epochs(sinks)) if recipe.gradient else ()
    return TrainResult(adapter=adapter, epochs=epochs, val=run.val or run.validate(0))


class _Run:
    """State of one training: what a checkpoint has to hold."""

    def __init__(
        self,
        backbone: Backbone,
        data: TaskData,
        adapter: Adapter,
        recipe: Recipe,
        settings: TrainConfig,
        seed: int,
    ) -> None:
        self.backbone = backbone
        self.data = data
        self.adapter = adapter
        self.recipe = recipe
        self.settings = settings
        self.optimizer = build_optimizer(recipe, adapter, settings.batch_size)
        self.order = torch.Generator().manual_seed(seed)  # always on the CPU: data order
        self.dropout = Dropout(torch.Generator(backbone.device).manual_seed(seed))
        self.steps = -(-len(data.train) // settings.batch_size)  # in an epoch
        self.taken = 0
        self.val: Evaluation | None = None  # after the last whole epoch

    def epochs(self, sinks: Sequence[Sink]) -> Iterator[Epoch]:
        last_good = _state(self.adapter)
        for number in range(1, self.settings.epochs + 1):
            begun = time.perf_counter()
            try:
                loss, train_score = self._epoch(number, sinks)
                val = self.validate(number)
            except TrainingDiverged as error:
                error.last_good = last_good
                raise
            last_good, self.val = _state(self.adapter), val
            epoch = Epoch(
                number=number,
                loss=loss,
                train=train_score,
                val=val.score,
                val_loss=val.loss,
                rate=self._rate(self.taken - 1),
                seconds=time.perf_counter() - begun,
            )
            for sink in sinks:
                sink.epoch(epoch)
            yield epoch

    def _epoch(self, number: int, sinks: Sequence[Sink]) -> tuple[float, Score]:
        order = torch.randperm(len(self.data.train), generator=self.order)
        total, correct = 0.0, 0
        for rows in torch.split(order, self.settings.batch_size):
            loss, right = self._step(rows, number)
            total += loss * len(rows)
            correct += right
            for sink in sinks:
                sink.step(self.taken, self.steps * self.settings.epochs)
        return total / len(order), Score(correct=correct, total=len(order))

    def _step(self, rows: Tensor, number: int) -> tuple[float, int]:
        device = self.backbone.device
        images = normalise(self.data.train.images[rows].to(device), self.backbone.spec)
        labels = self.data.train.labels[rows].to(device)
        rate = self._rate(self.taken)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate
        self.optimizer.zero_grad()
        logits = model.forward(self.backbone, images, self.adapter.fold(), self.dropout)
        loss = functional.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        torch.autograd.backward(loss)
        limit = self.recipe.clip_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.adapter.parameters(), limit)
        value = loss.item()
        if not (torch.isfinite(norm) and torch.isfinite(loss)):
            raise TrainingDiverged(
                f"training diverged in epoch {number}, step {self.taken + 1}: the loss is"
                f" {value:g} and the gradient's norm {norm.item():g}, at {rate:.0%} of the"
                f" learning rate {self.recipe.learning_rate:g}",
                fix=_LOWER_RATE,
            )
        self.optimizer.step()
        self.taken += 1
        return value, int((logits.argmax(1) == labels).sum())

    def validate(self, number: int) -> Evaluation:
        """Judge the state after an epoch, whose last step no training loss has seen.

        Raises:
            TrainingDiverged: the validation loss is NaN or infinite.
        """
        with torch.no_grad():
            val = evaluate(self.backbone, self.data.val, self.adapter.fold())
        if not math.isfinite(val.loss):
            raise TrainingDiverged(
                f"training diverged in the last step of epoch {number}: the validation loss is"
                f" {val.loss:g}, at a learning rate of {self.recipe.learning_rate:g}",
                fix=_LOWER_RATE,
            )
        return val

    def _rate(self, step: int) -> float:
        return self.recipe.rate(step, self.steps, self.settings.epochs)


def _start_head(
    backbone: Backbone, data: TaskData, adapter: Adapter, progress: Progress | None
) -> None:
    """Start the head from ridge regression on the features the untrained adapter gives."""
    with torch.no_grad():
        features = extract_features(backbone, data.train, adapter.fold(), progress)
        ridge = fit_ridge(features, data.train.labels, len(data.classes))
        adapter.head.weight.copy_(ridge.weight * HEAD_SCALE)
        adapter.head.bias.copy_((ridge.bias - ridge.bias.mean()) * HEAD_SCALE)


def _state(adapter: Adapter) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in adapter.state_dict().items()}
