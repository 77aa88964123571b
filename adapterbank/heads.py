"""The classifier on top of the pooled features: one linear layer for each task."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Head"]


class Head(nn.Module):
    """Logits ``W x + b``.

    Starts as the paper's released recipe does: kaiming-normal weights by fan-out, and a bias of
    −log 99, so that every class starts near a probability of one per cent.

    Args:
        width: D.
        classes: C.
        generator: source of the initial weights.
    """

    def __init__(self, width: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        std = math.sqrt(2.0 / classes)
        self.weight = nn.Parameter(torch.randn(classes, width, generator=generator) * std)
        self.bias = nn.Parameter(torch.full((classes,), -math.log(99.0)))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, D) to logits (B, C)."""
        return functional.linear(features, self.weight, self.bias)
