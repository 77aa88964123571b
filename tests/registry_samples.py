"""Small, sound versions and registries for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from adapterbank.backbones.identity import identify
from adapterbank.records import InputSpec, Traits
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.store import Registry

WIDTH = 8
SPEC = InputSpec(size=(32, 48))
BACKBONE = BackboneRecord(
    uri="random://vit_tiny?seed=0",
    arch="vit_tiny",
    spec=SPEC,
    fingerprint=identify(
        [("norm.bias", "torch.float32", (WIDTH,), bytes(4 * WIDTH))], SPEC, "vit_tiny", {}
    ),
    traits=Traits(
        width=WIDTH,
        blocks=2,
        patch=(16, 16),
        grid=(2, 3),
        prefix_tokens=1,
        pool="token",
        parameters=1234,
    ),
)


def config_of(task: str, classes: tuple[str, ...] = ("cat", "dog", "öre")) -> dict[str, Any]:
    """Return a valid ``adapter_config.json``."""
    return {
        "schema": 1,
        "task": task,
        "method": {"name": "vapt", "hyper": {"prompts": 10, "rank": 8}},
        "classes": list(classes),
        "input": {
            "size": list(SPEC.size),
            "mean": list(SPEC.mean),
            "std": list(SPEC.std),
            "interpolation": SPEC.interpolation,
        },
        "backbone": {"uri": BACKBONE.uri, "fingerprint": BACKBONE.fingerprint},
        "parents": [],
        "data": {"source": f"embedded://{task}", "digest": "cd" * 32},
        "train": {"epochs": 8, "lr": 0.002},
        "seed": 0,
        "libraries": {"torch": "2.9"},
    }


def tensors_of(seed: int = 0, classes: int = 3) -> dict[str, np.ndarray]:
    """Return the tensors of an adapter."""
    generator = np.random.default_rng(seed)
    return {
        "head.weight": generator.standard_normal((classes, WIDTH), dtype=np.float32),
        "head.bias": np.zeros(classes, dtype=np.float32),
    }


def files_of(
    task: str,
    seed: int = 0,
    *,
    config: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> dict[str, bytes]:
    """Return the files of a sound version; each seed is another one."""
    stated = config or config_of(task)
    logits = np.ones((2, len(stated.get("classes") or "x")), dtype=np.float32)
    return {
        "adapter_config.json": json.dumps(stated).encode(),
        "canary.safetensors": save({"logits": logits}),
        "adapter_model.safetensors": save(dict(tensors or tensors_of(seed))),
        "routing.safetensors": save({"counts": np.array([1, 2, 3], dtype=np.int64)}),
        "metrics.json": b'{"test": {"correct": 3, "total": 4}}',
        "README.md": b"# A card\n",
    }


def new_registry(path: Path) -> Registry:
    """Create a registry that has a backbone, with a clock that stands still."""
    registry = Registry.open(path, create=True, clock=lambda: "2026-01-02T03:04:05Z")
    registry.set_backbone(BACKBONE)
    registry.backbone_weights.parent.mkdir()
    registry.backbone_weights.write_bytes(save({"norm.bias": np.zeros(WIDTH, np.float32)}))
    return registry
