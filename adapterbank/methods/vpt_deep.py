"""VPT-Deep (Jia et al., ECCV 2022, arXiv 2203.12119): learned prompts, new ones for every block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from adapterbank.methods.base import (
    Adapter,
    Dropout,
    Folded,
    Head,
    MethodConfig,
    drop_elements,
    uniform_prompts,
)
from adapterbank.records import Traits


class Config(MethodConfig):
    """Hyper-parameters of VPT-Deep."""

    prompts: int = Field(default=10, ge=1, le=4096)
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)


@dataclass(frozen=True, kw_only=True)
class FoldedVptDeep(Folded):
    """Prompts of every block (L, N, D)."""

    prompts: Tensor
    rate: float

    def context(self, block: int, tokens: Tensor, dropout: Dropout | None) -> Tensor:
        """Return the block's own prompts; they do not depend on the input."""
        return drop_elements(self.prompts[block], tokens.shape[0], self.rate, dropout)

    def stack_key(self) -> int:
        """N: prompts of different counts cannot be padded, attention would see the padding."""
        return self.prompts.shape[1]

    def stack_tensors(self) -> Mapping[str, Tensor]:
        """All prompts (L, N, D)."""
        return {"prompts": self.prompts}

    def stacked_context(self, rows: Mapping[str, Tensor], block: int, tokens: Tensor) -> Tensor:
        """Return each row's own prompts."""
        del tokens
        return rows["prompts"][:, block]


class VptDeep(Adapter):
    """Learned prompts (L, N, D), replaced before every block; drawn as in the paper."""

    config: Config

    def __init__(
        self, config: Config, traits: Traits, classes: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.config = config
        shape = (traits.blocks, config.prompts, traits.width)
        self.prompts = nn.Parameter(uniform_prompts(shape, traits, generator))
        self.head = Head(traits.width, classes, generator)

    def fold(self) -> FoldedVptDeep:
        """Return the prompts as they are."""
        return FoldedVptDeep(
            head_weight=self.head.weight,
            head_bias=self.head.bias,
            prompts=self.prompts,
            rate=self.config.dropout,
        )


build = VptDeep
