"""What the tests of the command line share: a bank's parameters, drawn images, a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

PARAMS = """\
# A bank for tests.
profile: tiny # the only one

profiles:
  tiny:
    limits: {train: 24, val: 12, test: 12}
    train: {epochs: 1, batch_size: 8}

backbone:
  uri: "random://vit_tiny_patch16_224?seed=0&depth=2&embed_dim=32&num_heads=2"
  size: [32, 32]

tasks:
  # Three plain colours.
  colours:
    data: photos
    method: vapt # the default
    hyper: {prompts: 2, rank: 2, kernel: 1}
    seed: 1 # of the first version
"""
COLOURS = {"blue": (40, 40, 200), "green": (40, 200, 40), "rusty red": (200, 60, 40)}


@dataclass(frozen=True)
class Ran:
    """What one run of the program gave."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


def draw(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    """Write a noisy image of one colour."""
    noise = np.random.default_rng(seed).integers(-30, 31, (36, 40, 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
