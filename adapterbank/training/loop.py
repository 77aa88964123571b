"""The only training loop: one adapter, one task, a frozen backbone."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from adapterbank.backbones.base import Backbone
from adapterbank.config.bank import TrainConfig
from adapterbank.data.base import TrainingData
from adapterbank.data.images import normalise
from adapterbank.errors import TrainingDiverged
from adapterbank.methods.base import Adapter, Dropout
from adapterbank.model import forward
from adapterbank.model.threads import computing_with
from adapterbank.records import Score
from adapterbank.training.checkpoint import Checkpoint, Checkpointer, restore, states_of
from adapterbank.training.evaluation import Evaluation, Progress, evaluate, extract_features
from adapterbank.training.recipes import Recipe, build_optimizer
from adapterbank.training.ridge import USUAL_TEMPERATURE, fit_ridge
from adapterbank.training.sinks import Epoch, Sink

_LOWER_RATE = "lower train.learning_rate of the task in pipelines/params.yaml"


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A trained adapter and how it came about."""

    adapter: Adapter
    epochs: tuple[Epoch, ...]
    val: Evaluation


def train(  # noqa: PLR0913  # each is a choice of the caller's
    backbone: Backbone,
    data: TrainingData,
    adapter: Adapter,
    recipe: Recipe,
    settings: TrainConfig,
    *,
    seed: int,
    sinks: Sequence[Sink] = (),
    progress: Progress | None = None,
    checkpoint: Checkpointer | None = None,
) -> TrainResult:
    """Train an adapter in place and judge it on validation images after every epoch.

    The last epoch's weights are the result: nothing is selected on any figure. Equal arguments
    give equal bits on one machine's CPU; attention's backward on a GPU promises no order of sums.

    Args:
        backbone: frozen.
        data: training and validation images of the task.
        adapter: at its start.
        recipe: how to optimise.
        settings: epochs, batch size and threads.
        seed: of the data's order and of dropout.
        sinks: called after every step and epoch.
        progress: called with the images done that the head's start is fitted to.
        checkpoint: goes on from the state that is there and keeps the state after each epoch.
            Stopping after any and going on gives the bits of never having stopped.

    Raises:
        InputError: the environment keeps the training from having its threads.
        TrainingDiverged: a loss or a gradient is NaN or infinite; the error's ``last_good`` holds
            the state after the last whole epoch (of the start, in the first).
    """
    adapter.to(backbone.device)
    state = None if checkpoint is None else checkpoint.state
    with computing_with(settings.threads):
        if recipe.head == "ridge" and state is None:
            softened = soften(recipe, settings, len(data.train))
            start_head(backbone, data, adapter, progress, softened=softened)
        run = _Run(backbone, data, adapter, recipe, settings, seed)
        if state is not None:
            run.resume(state)
        if recipe.gradient:
            run.epochs(sinks, checkpoint)
        val = run.val or run.validate(len(run.past))
    return TrainResult(adapter=adapter, epochs=tuple(run.past), val=val)


class _Run:
    """State of one training: all that changes is in a checkpoint."""

    def __init__(
        self,
        backbone: Backbone,
        data: TrainingData,
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
        self.past: list[Epoch] = []
        self.val: Evaluation | None = None  # after the last whole epoch

    def resume(self, state: Checkpoint) -> None:
        """Take up the state after a whole epoch."""
        self.adapter.load_state_dict(state.adapter, strict=True)
        restore(self.optimizer, self.adapter, state.optimizer)
        self.order.set_state(state.generators["order"])
        self.dropout.generator.set_state(state.generators["dropout"])
        self.taken, self.past = state.taken, list(state.epochs)

    def snapshot(self, adapter: Mapping[str, Tensor]) -> Checkpoint:
        """Copy the state after a whole epoch; the adapter's own was copied already."""
        return Checkpoint(
            taken=self.taken,
            epochs=tuple(self.past),
            adapter=adapter,
            optimizer=states_of(self.optimizer, self.adapter),
            generators={
                "order": self.order.get_state(),
                "dropout": self.dropout.generator.get_state(),
            },
        )

    def epochs(self, sinks: Sequence[Sink], checkpoint: Checkpointer | None) -> None:
        """Take the epochs that are left; each is kept before any sink is called."""
        last_good = _state(self.adapter)
        for number in range(len(self.past) + 1, self.settings.epochs + 1):
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
            self.past.append(epoch)
            if checkpoint is not None:
                checkpoint.save(self.snapshot(last_good))
            for sink in sinks:
                sink.epoch(epoch)

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
        logits = forward.forward(self.backbone, images, self.adapter.fold(), self.dropout)
        loss = functional.cross_entropy(logits, labels)
        torch.autograd.backward(loss)
        gradients = [p.grad for p in self.adapter.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        value = loss.item()
        if not (torch.isfinite(norm) and torch.isfinite(loss)):
            raise TrainingDiverged(
                f"training diverged in epoch {number}, step {self.taken + 1}: the loss is"
                f" {value:g} and the gradient's norm {norm.item():g}, at {rate:.0%} of the"
                f" learning rate {self.recipe.learning_rate:g}",
                fix=_LOWER_RATE,
            )
        self.optimizer.step()
        # A caller's autocast keeps each parameter's cast: the next forward would run the old ones.
        torch.clear_autocast_cache()
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


def soften(recipe: Recipe, settings: TrainConfig, images: int) -> float:
    """Return how far a head's start is softened: wholly where there are steps to sharpen it."""
    steps = settings.epochs * -(-images // settings.batch_size)
    return recipe.share(steps) if recipe.gradient else 0.0


def start_head(
    backbone: Backbone,
    data: TrainingData,
    adapter: Adapter,
    progress: Progress | None = None,
    *,
    softened: float = 0.0,
) -> None:
    """Start the head from ridge regression on the features the untrained adapter gives.

    Its logits are calibrated on images left out, so those of the images it is fitted to are too
    sure to learn from: only the wrong ones still have a gradient.

    Args:
        backbone: frozen.
        data: of which training images are looked at.
        adapter: at its start; its head is changed in place.
        progress: called with the images done.
        softened: from 0, calibrated, to 1, at the usual temperature if that is lower.
    """
    with torch.no_grad():
        features = extract_features(backbone, data.train, adapter.fold(), progress)
        ridge = fit_ridge(features, data.train.labels, len(data.classes))
        softest = min(1.0, USUAL_TEMPERATURE / ridge.temperature)
        temperature = ridge.temperature * softest**softened
        adapter.head.weight.copy_(ridge.weight * temperature)
        adapter.head.bias.copy_((ridge.bias - ridge.bias.mean()) * temperature)


def _state(adapter: Adapter) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in adapter.state_dict().items()}
