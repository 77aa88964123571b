"""Tiny random backbones of every kind that must work, and adapters away from their start."""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import Tensor

from adapterbank import catalog
from adapterbank.backbones.fingerprint import fingerprint
from adapterbank.backbones.timm_vit import TimmViT, build_vit, initial_state
from adapterbank.methods.base import Adapter
from adapterbank.records import InputSpec

A = TypeVar("A", bound=torch.nn.Module)

ARCH = "vit_tiny_patch16_224"
SMALL: MappingProxyType[str, object] = MappingProxyType(
    {"patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0, "img_size": 32}
)
# name → (constructor options on top of SMALL, input size)
KINDS: MappingProxyType[str, tuple[dict[str, object], tuple[int, int]]] = MappingProxyType(
    {
        "plain": ({}, (32, 32)),
        "registers": (  # as DINOv2 with registers
            {
                "patch_size": 14,
                "img_size": 56,
                "reg_tokens": 4,
                "no_embed_class": True,
                "init_values": 1e-5,
                "dynamic_img_size": True,
            },
            (56, 56),
        ),
        "mean_pooled": ({"global_pool": "avg"}, (32, 32)),  # as MAE, fine-tuned
        "no_cls": ({"class_token": False, "global_pool": "avg"}, (32, 32)),
        "wide": ({}, (24, 40)),  # non-square, and not the grid its positions were made for
        "map_pooled": ({"class_token": False, "global_pool": "map"}, (32, 32)),  # as SigLIP
        "qk_norm": ({"qk_norm": True, "qkv_bias": False}, (32, 32)),
    }
)


def random_state(options: dict[str, object], seed: int = 0) -> dict[str, Tensor]:
    """Draw a state in which every tensor matters: no zero bias, no tiny layer scale."""
    state = initial_state(ARCH, options, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if name.endswith(".gamma"):
            tensor.fill_(1.0)  # a layer scale of 1e-5 would hide its block
        tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
    return state


@cache
def backbone(kind: str) -> TimmViT:
    """Build the tiny backbone of one kind, once."""
    options, size = KINDS[kind]
    return build({**SMALL, **options}, size)


def build(
    options: dict[str, object], size: tuple[int, int], dtype: torch.dtype = torch.float32
) -> TimmViT:
    """Build a tiny backbone with random weights."""
    state = {name: tensor.to(dtype) for name, tensor in random_state(options).items()}
    spec = InputSpec(size=size)
    return build_vit(ARCH, options, state, spec, fingerprint(state, spec, ARCH, options))


def images(model: TimmViT, count: int, seed: int = 0) -> Tensor:
    """Draw normalised images (B, 3, H, W) in the backbone's dtype."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, 3, *model.spec.size, generator=generator)
    return pixels.to(next(model.vit.parameters()).dtype)


def adapter(method: str, model: TimmViT, *, classes: int = 5, seed: int = 1) -> Adapter:
    """Build a method's adapter with default hyper-parameters and random values everywhere."""
    module = catalog.load("adapterbank.methods", method, kind="method")
    generator = torch.Generator().manual_seed(seed)
    made: Adapter = module.build(module.Config(), model.traits, classes, generator)
    return scramble(made, seed)


def scramble(module: A, seed: int) -> A:
    """Move every parameter away from its start, where some gradients are zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.3 * noise.to(parameter.dtype))
    return module
