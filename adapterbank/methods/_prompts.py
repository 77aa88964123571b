"""What prompt methods share: how prompts start, and how they are dropped in training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adapterbank.methods.base import Dropout
from adapterbank.records import Traits

__all__ = ["drop_elements", "uniform_prompts"]


def uniform_prompts(shape: tuple[int, ...], traits: Traits, generator: torch.Generator) -> Tensor:
    """Draw from U(−v, v), v = sqrt(6 / (3·p² + D)) for patches of p², as VPT does.

    Returns:
        A tensor of ``shape``.
    """
    bound = math.sqrt(6.0 / (3 * traits.patch[0] * traits.patch[1] + traits.width))
    return torch.rand(shape, generator=generator).mul_(2.0 * bound).sub_(bound)


def drop_elements(prompts: Tensor, batch: int, rate: float, dropout: Dropout | None) -> Tensor:
    """Give prompts (N, D) a batch dimension, with a mask of its own for each image in training.

    Returns:
        (B, N, D) in training, else (1, N, D), which a backbone projects only once.
    """
    if dropout is None or rate == 0.0:
        return prompts[None]
    return prompts * dropout.mask((batch, *prompts.shape), rate, prompts)
