"""What a backbone *is*: a hash of its tensors and of how pixels reach it.

Every ViT-B/16 checkpoint has the same names and shapes, so nothing else can tell an adapter that
it meets the wrong one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor

from adapterbank.records import InputSpec

__all__ = ["fingerprint"]


def fingerprint(state: Mapping[str, Tensor], spec: InputSpec) -> str:
    """Hash name, dtype, shape and bytes of every tensor in sorted order, then the input spec.

    Args:
        state: the backbone's own tensors, before any resampling to an input size.
        spec: how pixels become its input.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        # reshape(-1): a zero-dimensional tensor cannot be viewed as bytes.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    digest.update(json.dumps(asdict(spec), sort_keys=True).encode())
    return digest.hexdigest()
