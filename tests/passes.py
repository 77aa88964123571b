"""How often images went through the backbone."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from torch import Tensor

from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.bank.bank import Bank
from adapterbank.data.images import normalise
from adapterbank.data.store import load_task


class Passes:
    """Counts the passes of each image from now on, by its pixels."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._counts: Counter[str] = Counter()
        embed = TimmViT.embed

        def counting(model: TimmViT, images: Tensor) -> Tensor:
            self._counts.update(_digest(image) for image in images)
            return embed(model, images)

        patch.setattr(TimmViT, "embed", counting)

    def of(self, bank: Bank, task: str) -> dict[str, set[int]]:
        """Return how often the images of each split were run; one number where all were alike."""
        spec = bank.registry.backbone().spec
        data = load_task(bank.data(task), spec=spec)
        return {
            name: {self._counts[_digest(image)] for image in normalise(split.images, spec)}
            for name in ("train", "val", "test")
            if (split := data.split(name))
        }


def _digest(image: Tensor) -> str:
    return hashlib.sha256(image.detach().contiguous().numpy().tobytes()).hexdigest()
