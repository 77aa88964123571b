"""What a backbone *is*: a hash of its tensors, its architecture and how pixels reach it.

Every ViT-B/16 checkpoint has the same names and shapes, so nothing else can tell an adapter that
it meets the wrong one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

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
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        # reshape(-1): a zero-dimensional tensor cannot be viewed as bytes.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    rest = [asdict(spec), arch, dict(options)]
    digest.update(json.dumps(rest, sort_keys=True, default=str).encode())
    return digest.hexdigest()
