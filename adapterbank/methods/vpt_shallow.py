"""VPT-Shallow (Jia et al., ECCV 2022, arXiv 2203.12119): prompts that join once and stay."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from adapterbank.methods.base import Adapter, Dropout, Folded, Head, MethodConfig, uniform_prompts
from adapterbank.records import Traits


class Config(MethodConfig):
    """Hyper-parameters of VPT-Shallow; it has no dropout."""

    prompts: int = Field(default=10, ge=1, le=4096)


@dataclass(frozen=True, kw_only=True)
class FoldedVptShallow(Folded):
    """Prompts (1, N, D) that become tokens of the sequence."""

    prompts: Tensor

    @property
    def appended(self) -> Tensor:
        """The prompts: they pass through every block as the other tokens do."""
        return self.prompts

    def context(self, block: int, tokens: Tensor, dropout: Dropout | None) -> None:
        """No prompts of a single block."""
        del block, tokens, dropout


class VptShallow(Adapter):
    """Learned prompts (1, N, D) beside the patch tokens, from the first block to the last."""

    config: Config

    def __init__(
        self, config: Config, traits: Traits, classes: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.config = config
        shape = (1, config.prompts, traits.width)
        self.prompts = nn.Parameter(uniform_prompts(shape, traits, generator))
        self.head = Head(traits.width, classes, generator)

    def fold(self) -> FoldedVptShallow:
        """Return the prompts as they are."""
        return FoldedVptShallow(
            head_weight=self.head.weight, head_bias=self.head.bias, prompts=self.prompts
        )


build = VptShallow
