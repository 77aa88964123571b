"""A registry whose versions really answer: a tiny random backbone and adapters nobody trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from adapterbank.backbones.loading import Source, load
from adapterbank.backbones.sources import fetch
from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.inference.artifact import add_metrics, build_adapter, pack_trained
from adapterbank.methods.base import Adapter
from adapterbank.records import InputSpec
from adapterbank.registry.adapter_config import parse_adapter_config
from adapterbank.registry.aliases import ANY, add_version, move_alias
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.layout import Layout
from adapterbank.registry.manifest import MANIFEST, build_manifest, version_digest
from adapterbank.registry.publish import publish as write_files
from adapterbank.registry.publish import save_record
from adapterbank.registry.store import Registry
from adapterbank.registry.task_record import Stamp, TaskRecord
from adapterbank.registry.versions import Version
from adapterbank.routing.record import task_record
from tests import tiny

URI = "random://vit_tiny_patch16_224?seed={seed}&depth=2&embed_dim=32&num_heads=2"
SPEC = InputSpec(size=(32, 32))
CLASSES = ("ant", "bee", "cat", "dog")
METRICS = {"val": {"correct": 3, "total": 4}, "test": {"correct": 1, "total": 2}}


@cache
def source(seed: int = 0) -> Source:
    """Draw the tensors of a backbone; all seeds give equal shapes."""
    return fetch(URI.format(seed=seed))


@cache
def backbone(seed: int = 0) -> TimmViT:
    """Build that backbone."""
    return load(source(seed), SPEC)


def new_registry(root: Path, seed: int = 0) -> Registry:
    """Create a registry with that backbone's record and weights."""
    registry = Registry.open(root, create=True, clock=lambda: "2026-01-02T03:04:05Z")
    drawn, built = source(seed), backbone(seed)
    registry.set_backbone(
        BackboneRecord(
            uri=drawn.uri,
            arch=drawn.arch,
            spec=SPEC,
            fingerprint=built.fingerprint,
            traits=built.traits,
        )
    )
    write_weights(registry, seed)
    return registry


def write_weights(registry: Registry, seed: int) -> None:
    """Put a backbone's weights where the registry keeps them."""
    registry.backbone_weights.parent.mkdir(exist_ok=True)
    registry.backbone_weights.write_bytes(save(source(seed).state))


def picture(seed: int, size: tuple[int, int] = (40, 36)) -> Image.Image:
    """Draw noise; each seed is another picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def adapter(
    seed: int = 1,
    method: str = "vapt",
    classes: tuple[str, ...] = CLASSES,
    hyper: Mapping[str, Any] | None = None,
) -> Adapter:
    """Build an adapter with random values everywhere."""
    built = build_adapter(
        method, hyper or {}, backbone().traits, len(classes), seed=seed, where="a test"
    )  # fmt: skip
    return tiny.scramble(built, seed)


def describe(
    task: str, made: Adapter, method: str = "vapt", classes: tuple[str, ...] = CLASSES
) -> dict[str, Any]:
    """Return the content of ``adapter_config.json`` for an adapter."""
    return {
        "schema": 1,
        "task": task,
        "method": {"name": method, "hyper": made.config.model_dump()},
        "classes": list(classes),
        "input": json.loads(json.dumps(asdict(SPEC))),
        "backbone": {"uri": source().uri, "fingerprint": backbone().fingerprint},
        "parents": [],
        "data": {"source": f"embedded://{task}", "digest": "cd" * 32},
        "train": {"epochs": 1},
        "seed": 0,
        "libraries": {"torch": "2.9"},
    }


def pack(made: Adapter, config: Mapping[str, Any]) -> dict[str, bytes]:
    """Make the files of a version from an adapter, as the stages do."""
    parsed = parse_adapter_config(json.dumps(config).encode())
    features = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 1, 32), np.float32))
    count = len(config["classes"])
    blocks = (backbone().traits.blocks,)
    routing = task_record(features, torch.arange(8) % count, count, features[:3], blocks)
    return add_metrics(pack_trained(made, parsed, backbone(), routing), METRICS)


def publish(
    registry: Registry,
    task: str,
    seed: int = 1,
    *,
    method: str = "vapt",
    classes: tuple[str, ...] = CLASSES,
    hyper: Mapping[str, Any] | None = None,
    change: Callable[[Adapter], object] | None = None,
    more: Mapping[str, bytes] | None = None,
) -> Version:
    """Register a version of a task that is another one for each seed, with more files, if any."""
    made = adapter(seed, method, classes, hyper)
    if change is not None:
        change(made)
    files = pack(made, describe(task, made, method, classes))
    return registry.register(task, files | dict(more or {}))


def smuggle(registry: Registry, task: str, files: Mapping[str, bytes]) -> Version:
    """Publish a champion as somebody who writes into the folder can: past all checks."""
    stamp = Stamp(actor="x", reason="", time="2026-01-02T03:04:05Z")
    payload = {name: data for name, data in files.items() if name != MANIFEST}
    manifest = build_manifest(payload)
    digest, layout = version_digest(manifest), Layout(root=registry.root)
    write_files(layout, task, digest, {**payload, MANIFEST: manifest})
    record = add_version(TaskRecord(task=task), digest, stamp)
    save_record(layout, move_alias(record, "champion", 1, ANY, stamp))
    return registry.resolve(task)
