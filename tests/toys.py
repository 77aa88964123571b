"""Small tasks that any method can learn in seconds: noisy images of one colour for each class."""

from __future__ import annotations

import torch

from adapterbank.backbones.base import Backbone
from adapterbank.data.base import Split, TaskData
from adapterbank.inference.artifact import build_adapter
from adapterbank.methods.base import Adapter
from adapterbank.training.recipes import Recipe

CLASSES = ("blue", "green", "red")

# Fixed here, so that the tests do not change with the default recipe.
RECIPE = Recipe(
    optimizer="adamw", learning_rate=5e-3, weight_decay=0.0, warm_up=0.1, head="as_built"
)


def split(count: int, seed: int, size: tuple[int, int] = (32, 32)) -> Split:
    """Draw images of the classes by turns."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    images = torch.randint(0, 160, (count, 3, *size), dtype=torch.uint8, generator=generator)
    images[torch.arange(count), 2 - labels] += 95
    return Split(images=images, labels=labels)


def task(size: tuple[int, int] = (32, 32), *, train: int = 24, seed: int = 0) -> TaskData:
    """Draw a task whose splits share no image."""
    return TaskData(
        classes=CLASSES,
        train=split(train, seed, size),
        val=split(12, seed + 1, size),
        test=split(12, seed + 2, size),
        source="toys",
    )


def start(method: str, backbone: Backbone, seed: int = 0) -> Adapter:
    """Build a method's adapter at its start, as training gets it."""
    return build_adapter(method, {}, backbone.traits, len(CLASSES), seed=seed, where="a test")
