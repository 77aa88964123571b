"""What a training tells of itself, and to whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from adapterbank.records import Score


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
        """Called after each epoch, once its checkpoint, if any, is on the disk."""
