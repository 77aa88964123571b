"""VAPT written as the paper draws it: slow, readable, and what the folded form is tested against.

Nothing here is shared with :mod:`adapterbank.methods.vapt` but the parameters: prompts are
ordinary tokens between CLS and the patches, every block is timm's own, the convolution is a
convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.methods.base import Dropout
from adapterbank.methods.vapt import Vapt


def reference_forward(
    backbone: TimmViT, images: Tensor, adapter: Vapt, dropout: Dropout | None = None
) -> Tensor:
    """Logits (B, C) of images (B, 3, H, W) under an unfolded adapter."""
    tokens = backbone.embed(images)
    prefix = backbone.traits.prefix_tokens
    prompts = adapter.config.prompts
    for index, block in enumerate(backbone.vit.blocks):
        fresh = reference_prompts(adapter, index, tokens, dropout)
        sequence = torch.cat((tokens[:, :prefix], fresh, tokens[:, prefix:]), dim=1)
        sequence = block(sequence)
        tokens = torch.cat((sequence[:, :prefix], sequence[:, prefix + prompts :]), dim=1)
    return adapter.head(backbone.finalize(tokens))  # type: ignore[no-any-return]


def reference_prompts(
    adapter: Vapt, block: int, tokens: Tensor, dropout: Dropout | None = None
) -> Tensor:
    """Prompts (B, N, D) of one block from its input tokens (B, T, D)."""
    config, traits = adapter.config, adapter.traits
    batch, _, width = tokens.shape
    if block == 0:
        first = adapter.first.expand(batch, -1, -1)
        if dropout is not None and config.dropout_first:
            first = first * dropout.mask(tuple(first.shape), config.dropout_first, first)
        return first
    index = block - 1
    normed = functional.layer_norm(
        tokens, (width,), adapter.norm_weight[index], adapter.norm_bias[index], eps=1e-5
    )
    patches = normed[:, traits.prefix_tokens :]
    maps = patches.mT.reshape(batch, width, *traits.grid)  # (B, D, grid)
    if config.conv:
        kernel = adapter.kernel[index].expand(width, 1, -1, -1)
        maps = functional.conv2d(maps, kernel, padding=config.padding, groups=width)
    if dropout is not None and config.dropout_channels:
        mask = dropout.mask((batch, 1, width), config.dropout_channels, maps)
        maps = maps * mask.mT[..., None]
    pooled = functional.linear(maps.flatten(2), adapter.alpha[index], adapter.bias[index]).mT
    if config.base_prompts:
        pooled = pooled + adapter.base[index]
    if config.projector == "none":
        return pooled
    per_block = config.projector == "per_block"
    down = adapter.down[index] if per_block else adapter.down
    up = adapter.up[index] if per_block else adapter.up
    hidden = functional.linear(pooled, down)
    hidden = {"relu": torch.relu, "gelu": functional.gelu, "sigmoid": torch.sigmoid}[
        config.activation
    ](hidden)
    if dropout is not None and config.dropout_projector:
        hidden = hidden * dropout.mask(tuple(hidden.shape), config.dropout_projector, hidden)
    branch = functional.linear(hidden, up)
    if config.learnable_scale:
        branch = adapter.scale * branch
    return pooled + branch if config.residual else branch
