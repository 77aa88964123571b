"""What a backbone *is*: a hash of its tensors, its architecture and how pixels reach it.

Every ViT-B/16 checkpoint has the same names and shapes, so nothing else can tell an adapter that
it meets the wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adapterbank.backbones.identity import identify
from adapterbank.records import InputSpec


def fingerprint(
    state: Mapping[str, Tensor], spec: InputSpec, arch: str, options: Mapping[str, Any]
) -> str:
    """Hash name, dtype, shape and bytes of every tensor in sorted order, then spec and arch.

    Args:
        state: the backbone's own tensors, before any resampling to an input size.
        spec: how pixels become its input.
        arch: timm's name of the architecture.
        options: its constructor's options; another pooling, say, has no tensors of its own.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    tensors = ((name, state[name].detach().cpu().contiguous()) for name in sorted(state))
    stored = (
        # reshape(-1): a zero-dimensional tensor cannot be viewed as bytes.
        (name, str(t.dtype), tuple(t.shape), t.reshape(-1).view(torch.uint8).numpy().data)
        for name, t in tensors
    )
    return identify(stored, spec, arch, options)
