"""The contract of a backbone: embed, blocks one by one, finalise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from adapterbank.records import InputSpec, Traits

CACHED_BYTES = 8 << 20
"""Widest activations of a block, (rows, tokens, 4·D) float32, that a processor handles fastest.

Measured on two cores with ViT-Ti, S and B at 84 and 224 pixels (``benchmarks/rows.py``)."""

Groups = Sequence[tuple[int, Tensor | None]]
"""Prompts that differ in number: how many consecutive rows, and their prompts.

Prompts are (rows, N, D), (1, N, D) where the rows share them, or None for rows without any.
"""


class Backbone(Protocol):
    """A frozen vision transformer that lets a caller act between its blocks.

    It holds no adapter and no state of a call: any number of threads may use one at once.
    """

    @property
    def traits(self) -> Traits:
        """Width, depth, grid…, for the input size it was loaded with."""

    @property
    def spec(self) -> InputSpec:
        """How pixels become its input."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its tensors and input spec."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""

    def embed(self, images: Tensor) -> Tensor:
        """Turn normalised images (B, 3, H, W) into tokens (B, T, D)."""

    def block(
        self,
        index: int,
        tokens: Tensor,
        context: Tensor | Groups | None = None,
        *,
        pooled: bool = False,
    ) -> Tensor:
        """Run one block over ``tokens``, which may also attend to ``context``.

        Args:
            index: block number, from 0.
            tokens: (B, T, D) block input.
            context: (B, N, D) or (1, N, D) prompts: keys and values of this block only, that
                are normalised as tokens are but are never queries and leave no output. Or groups
                that together cover the B rows in order, each with prompts of its own number.
            pooled: return only the tokens that :meth:`finalize` reads, where it reads few.

        Returns:
            (B, T, D), or fewer tokens where ``pooled`` allows it.
        """

    def finalize(self, tokens: Tensor) -> Tensor:
        """Normalise and pool a block's tokens (B, T, D) into features (B, D), as the last's are."""


def slices(backbone: Backbone, rows: int) -> Iterator[slice]:
    """Cut a batch into parts that run fastest one after the other; nobody's gradient goes here.

    On a processor, activations of many images leave its caches before they are read again. An
    accelerator takes all rows at once.

    Args:
        backbone: what they will go through.
        rows: of the batch.
    """
    traits, most = backbone.traits, max(1, rows)
    if backbone.device.type == "cpu":
        tokens = traits.patches + traits.prefix_tokens
        most = max(1, CACHED_BYTES // (4 * 4 * traits.width * tokens))
    step = math.ceil(rows / max(1, math.ceil(rows / most)))  # none is a small remainder
    yield from (slice(start, start + step) for start in range(0, rows, max(1, step)))
