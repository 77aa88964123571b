"""The contract of a method: a configuration, a trainable adapter, and its folded form.

A method is a module of this package with a ``Config`` and a ``build`` function (:class:`Method`).
Everything else, saving, loading, counting, training, serving and the contract tests, follows from
the contract, so adding a method edits no other file.

An :class:`Adapter` holds parameters; a :class:`Folded` holds what one forward needs, computed
from them. Training folds anew at every step and lets gradients flow through the fold; serving
folds once. So there is one forward, and the one that is trained is the one that is served.

Rows of one batch may belong to different adapters (:mod:`adapterbank.model.mixed`). That works for
any
method; one that also says how its folded forms lie side by side (:meth:`Folded.stack_key`) is as
fast with many adapters in a batch as with one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from adapterbank.records import Traits


class MethodConfig(BaseModel):
    """Hyper-parameters of a method: strict types, unknown keys refused, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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


class Dropout:
    """Dropout masks from a generator of the caller's, so that a run can be repeated.

    Args:
        generator: on the device of the tensors to be masked.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def mask(self, shape: tuple[int, ...], rate: float, like: Tensor) -> Tensor:
        """Draw a mask of zeros and ``1 / (1 - rate)`` in ``like``'s dtype."""
        kept = torch.rand(shape, generator=self.generator, device=like.device) >= rate
        return kept.to(like.dtype) / (1.0 - rate)


@dataclass(frozen=True, kw_only=True)
class Folded(ABC):
    """What one forward needs of an adapter. Immutable; any number of threads may share one."""

    head_weight: Tensor  # (C, D)
    head_bias: Tensor  # (C,)

    @property
    def appended(self) -> Tensor | None:
        """(1, N, D) tokens that join the sequence after the embedding and stay in it."""
        return None

    @abstractmethod
    def context(self, block: int, tokens: Tensor, dropout: Dropout | None) -> Tensor | None:
        """Prompts that ``block`` attends to, and only it.

        Args:
            block: block number, from 0.
            tokens: (B, T, D) the block's input, without any prompts.
            dropout: source of masks in training; None in evaluation.

        Returns:
            (B, N, D), (1, N, D) where they do not depend on the input, or None.
        """

    def stack_key(self) -> Hashable | None:
        """Say which forms of this class may be stacked: those whose keys are equal.

        The key holds what changes the arithmetic or a shape that zeros cannot pad. ``None``, unless
        a method says otherwise: rows of different adapters get their prompts one adapter after
        the other.
        """
        return None

    def stack_tensors(self) -> Mapping[str, Tensor]:
        """Tensors that :meth:`stacked_context` needs of each row, padded with zeros where smaller.

        Forms of one key give the same names, each with equally many dimensions.
        """
        return {}

    def stacked_context(
        self, rows: Mapping[str, Tensor], block: int, tokens: Tensor
    ) -> Tensor | None:
        """Compute :meth:`context`, in evaluation, of rows that have an adapter each.

        Called on any one of the stacked forms.

        Args:
            rows: by name, what :meth:`stack_tensors` gave for the adapter of each row, stacked and
                padded: (B, …).
            block: block number, from 0.
            tokens: (B, T, D) the block's input, without any prompts.

        Returns:
            (B, N, D) or None.
        """
        del rows, block, tokens
        raise NotImplementedError(f"{type(self).__name__} has a stack_key but no stacked_context")

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor of this form, for moving and counting bytes."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                yield value

    @property
    def nbytes(self) -> int:
        """Bytes that keeping this form in memory takes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors())


class Adapter(nn.Module, ABC):
    """The trainable state of one method for one task: its parameters and a head.

    Parameters have flat names (``alpha``, ``down``…): recipes choose learning rates by them.
    """

    config: MethodConfig
    head: Head

    @abstractmethod
    def fold(self) -> Folded:
        """Compute the form that runs, differentiably in every parameter."""


class Method(Protocol):
    """What a module of this package provides."""

    Config: type[MethodConfig]

    def build(
        self, config: MethodConfig, traits: Traits, classes: int, generator: torch.Generator
    ) -> Adapter:
        """Make an adapter at its start.

        Raises:
            InputError: the configuration does not fit the backbone.
        """


def count_parameters(adapter: nn.Module) -> tuple[int, int]:
    """Count trained numbers: of the method, and of the head."""
    head = sum(p.numel() for name, p in adapter.named_parameters() if name.startswith("head."))
    return sum(p.numel() for p in adapter.parameters()) - head, head


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
