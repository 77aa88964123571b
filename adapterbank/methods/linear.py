"""Linear probe: the frozen backbone with a trained head and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adapterbank.methods.base import Adapter, Dropout, Folded, Head, MethodConfig
from adapterbank.records import Traits

DEFAULT_RECIPE = "closed_form"  # ridge regression: exact, and a thousand times cheaper


class Config(MethodConfig):
    """A linear probe has no hyper-parameters of its own."""


@dataclass(frozen=True, kw_only=True)
class FoldedLinear(Folded):
    """Only a head."""

    def context(self, block: int, tokens: Tensor, dropout: Dropout | None) -> None:
        """No prompts."""
        del block, tokens, dropout


class Linear(Adapter):
    """A head on frozen features."""

    config: Config

    def __init__(
        self, config: Config, traits: Traits, classes: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.config = config
        self.head = Head(traits.width, classes, generator)

    def fold(self) -> FoldedLinear:
        """Return the head."""
        return FoldedLinear(head_weight=self.head.weight, head_bias=self.head.bias)


build = Linear
