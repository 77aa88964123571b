"""One forward for every method: the backbone's blocks, with an adapter's prompts between them.

The adapter is an argument of the call, never a state of the model, so threads may run different
adapters through one backbone at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from adapterbank.backbones.base import Backbone
from adapterbank.methods.base import Dropout, Folded


def features(
    backbone: Backbone, images: Tensor, folded: Folded | None = None, dropout: Dropout | None = None
) -> Tensor:
    """Pooled features of images, under an adapter or (``None``) of the bare backbone.

    Prompts carry no position, and attention does not depend on the order of its keys, so they
    stand behind the image's tokens here; the paper draws them before the patches.

    Args:
        backbone: the frozen backbone.
        images: (B, 3, H, W) normalised.
        folded: the adapter, folded.
        dropout: source of masks in training; None in evaluation.

    Returns:
        (B, D).
    """
    tokens = backbone.embed(images)
    count = tokens.shape[1]
    if folded is not None and folded.appended is not None:
        tokens = torch.cat((tokens, folded.appended.expand(tokens.shape[0], -1, -1)), dim=1)
    last = backbone.traits.blocks - 1
    for index in range(last + 1):
        context = None if folded is None else folded.context(index, tokens, dropout)
        tokens = backbone.block(index, tokens, context, pooled=index == last)
    return backbone.finalize(tokens[:, :count])


def frozen_features(backbone: Backbone, images: Tensor, blocks: Sequence[int]) -> Tensor:
    """Pooled features of images after some blocks of the bare backbone, in one pass.

    Those of earlier blocks go through the backbone's last norm and pooling, as those of the last
    do; nothing after the deepest of ``blocks`` is run.

    Args:
        backbone: the frozen backbone.
        images: (B, 3, H, W) normalised.
        blocks: which, counted from 1.

    Returns:
        (B, L, D), blocks in the order of ``blocks``.
    """
    tokens, pooled_after, deepest = backbone.embed(images), {}, max(blocks)
    for block in range(1, deepest + 1):
        tokens = backbone.block(block - 1, tokens, pooled=block == deepest)
        if block in blocks:
            pooled_after[block] = backbone.finalize(tokens)
    return torch.stack([pooled_after[block] for block in blocks], dim=1)


def forward(
    backbone: Backbone, images: Tensor, folded: Folded, dropout: Dropout | None = None
) -> Tensor:
    """Logits (B, C) of images under an adapter; see :func:`features`."""
    pooled = features(backbone, images, folded, dropout)
    return classify(pooled, folded.head_weight, folded.head_bias)


def classify(pooled: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits (B, C) of pooled features (B, D), by a head's weight (C, D) and bias (C,).

    In the head's own precision under autocast too: a ridge head's products nearly cancel.
    """
    with torch.autocast(pooled.device.type, enabled=False):
        return functional.linear(pooled.to(weight.dtype), weight, bias)
