"""More versions for a finished bank of tests, without training any."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.torch import load as load_tensors

from adapterbank.bank.bank import Bank
from adapterbank.inference.artifact import add_metrics, build_adapter, pack_trained
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.methods.base import Adapter
from adapterbank.registry.adapter_config import parse_adapter_config
from adapterbank.registry.seen import SEEN
from adapterbank.registry.versions import Version

Change = Callable[[Adapter], None]


def confuse(adapter: Adapter) -> None:
    """Let every class answer for its neighbour."""
    with torch.no_grad():
        adapter.head.weight.copy_(adapter.head.weight.roll(1, dims=0))
        adapter.head.bias.copy_(adapter.head.bias.roll(1, dims=0))


def sharpen(adapter: Adapter) -> None:
    """Change every probability and no answer."""
    with torch.no_grad():
        adapter.head.weight.mul_(2.0)
        adapter.head.bias.mul_(2.0)


def republish(
    bank: Bank,
    ref: str,
    change: Change,
    *,
    task: str | None = None,
    classes: tuple[str, ...] | None = None,
    routing: Mapping[str, NDArray[np.generic]] | None = None,
) -> Version:
    """Register a changed copy of a version, whose canary is right."""
    files = bank.registry.read(bank.registry.resolve(ref))
    config = json.loads(files["adapter_config.json"])
    config |= {"task": task or config["task"], "classes": list(classes or config["classes"])}
    backbone = load_bank_backbone(bank.registry)
    method = config["method"]
    adapter = build_adapter(
        method["name"], method["hyper"], backbone.traits, len(config["classes"]),
        seed=0, where="a test",
    )  # fmt: skip
    adapter.load_state_dict(load_tensors(files["adapter_model.safetensors"]))
    change(adapter)
    parsed = parse_adapter_config(json.dumps(config).encode())
    record = load_arrays(files["routing.safetensors"]) if routing is None else routing
    trained = pack_trained(adapter, parsed, backbone, record)
    trained |= {SEEN: files[SEEN]}
    metrics = json.loads(files["metrics.json"])
    return bank.registry.register(config["task"], add_metrics(trained, metrics))


def damage(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
