"""A bank whose tasks a router can tell apart, made without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from adapterbank.config.router import RouterConfig
from adapterbank.data.base import Split
from adapterbank.data.images import to_pixels
from adapterbank.inference.artifact import add_metrics, pack_trained
from adapterbank.registry.adapter_config import parse_adapter_config
from adapterbank.registry.documents import dump_document
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from adapterbank.routing.record import task_record
from adapterbank.training.evaluation import extract_frozen
from tests import served

COLOURS = {"reds": (200, 60, 40), "greens": (40, 200, 40), "blues": (40, 40, 200)}


def picture(task: str, label: int, number: int) -> Image.Image:
    """Draw an image of a task: its colour, with stripes whose width is the class, and noise."""
    generator = np.random.default_rng([number, label, sum(map(ord, task))])
    stripes = (np.arange(32) // (2 + 3 * label) % 2)[:, None, None] * 60
    noise = generator.integers(-40, 41, (32, 32, 3))
    colour = np.array(COLOURS.get(task, (240, 240, 240)))
    return Image.fromarray(np.clip(colour - stripes + noise, 0, 255).astype(np.uint8))


def strange() -> Image.Image:
    """Draw what no task has: a checkerboard of black and white."""
    return Image.fromarray((np.indices((32, 32)).sum(0) // 4 % 2 * 255).astype(np.uint8))


def split(task: str, each: int, start: int = 0) -> Split:
    """Draw ``each`` images of both classes."""
    labels = [label for label in range(2) for _ in range(each)]
    drawn = [picture(task, label, start + n) for label in range(2) for n in range(each)]
    images = torch.stack([to_pixels(image, served.SPEC) for image in drawn])
    return Split(images=images, labels=torch.tensor(labels))


def publish(
    registry: Registry,
    task: str,
    seed: int = 1,
    more: Mapping[str, object] | None = None,
    *,
    blocks: tuple[int, ...] | None = None,
    classes: tuple[str, ...] = ("thin", "wide"),
) -> Version:
    """Register a version of a colour's task with its true routing record, and promote it.

    Args:
        registry: with the backbone of ``served``.
        task: a colour, or any name for white.
        seed: of the adapter.
        more: what its configuration says otherwise.
        blocks: of its record; None: the usual ones.
        classes: of which the images are spread over all.
    """
    made = served.adapter(seed, classes=classes)
    config = {**served.describe(task, made, classes=classes), **(more or {})}
    train, held = split(task, 20), split(task, 30, 500)
    backbone = served.backbone()
    of = blocks or RouterConfig().recorded(backbone.traits.blocks)
    features, held_out = (extract_frozen(backbone, images, of) for images in (train, held))
    labels = torch.arange(len(train)) % len(classes) if len(classes) > 2 else train.labels
    routing = task_record(features, labels, len(classes), held_out, of)
    parsed = parse_adapter_config(dump_document(config))
    files = add_metrics(pack_trained(made, parsed, backbone, routing), served.METRICS)
    version = registry.register(task, files)
    registry.promote(str(version), expected=registry.aliases(task).get("champion"))
    return version


def colour_registry(root: Path, *tasks: str) -> Registry:
    """Make a registry of some of the colours, each with a champion."""
    registry = served.new_registry(root)
    for index, task in enumerate(tasks or tuple(COLOURS)):
        publish(registry, task, index + 1)
    return registry
