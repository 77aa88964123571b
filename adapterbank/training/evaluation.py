"""Run an adapter over a split and count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from adapterbank.backbones.base import Backbone, slices
from adapterbank.data.base import Split
from adapterbank.data.images import normalise
from adapterbank.methods.base import Folded
from adapterbank.model import forward
from adapterbank.records import Score

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""

EVALUATION_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Answers on one split."""

    score: Score
    loss: float  # mean cross-entropy, nats
    confusion: Tensor  # (C, C) int64 counts, rows are true classes
    logits: Tensor  # (n, C)


def batches(backbone: Backbone, split: Split, progress: Progress | None = None) -> Iterator[Tensor]:
    """Yield normalised images of a split in order, as many at a time as run fastest."""
    total = len(split)
    for start in range(0, total, EVALUATION_BATCH):
        pixels = split.images[start : start + EVALUATION_BATCH].to(backbone.device)
        images = normalise(pixels, backbone.spec)
        for part in slices(backbone, len(images)):
            yield images[part]
        if progress is not None:
            progress(min(start + EVALUATION_BATCH, total), total)


def extract_features(
    backbone: Backbone,
    split: Split,
    folded: Folded | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Pooled features (n, D) of a split, on the CPU, under an adapter or the bare backbone."""
    step = partial(forward.features, backbone, folded=folded)
    return _collect(step, batches(backbone, split, progress))


def extract_frozen(
    backbone: Backbone, split: Split, blocks: Sequence[int], progress: Progress | None = None
) -> Tensor:
    """Features (n, L, D) of a split after some blocks of the bare backbone, on the CPU."""
    step = partial(forward.frozen_features, backbone, blocks=blocks)
    return _collect(step, batches(backbone, split, progress))


@torch.inference_mode()
def _collect(step: Callable[[Tensor], Tensor], batched: Iterable[Tensor]) -> Tensor:
    """Run a step over batches, and bring what it gives to the CPU."""
    return torch.cat([step(images).cpu() for images in batched])


@torch.inference_mode()
def split_logits(
    backbone: Backbone, split: Split, folded: Folded, progress: Progress | None = None
) -> Tensor:
    """Logits (n, C) of an adapter on a split, on the CPU."""
    pooled = extract_features(backbone, split, folded, progress)
    weight, bias = folded.head_weight.detach().cpu(), folded.head_bias.detach().cpu()
    return forward.classify(pooled, weight, bias)


def evaluate(
    backbone: Backbone, split: Split, folded: Folded, progress: Progress | None = None
) -> Evaluation:
    """Count right answers, the mean loss and the confusion matrix of an adapter on a split."""
    return score(split_logits(backbone, split, folded, progress), split.labels)


def score(logits: Tensor, labels: Tensor) -> Evaluation:
    """Count right answers of logits (n, C) against labels (n,)."""
    classes = logits.shape[1]
    predicted = logits.argmax(1)
    confusion = torch.bincount(labels * classes + predicted, minlength=classes**2)
    return Evaluation(
        score=Score(correct=int((predicted == labels).sum()), total=len(labels)),
        loss=float(functional.cross_entropy(logits, labels)),
        confusion=confusion.reshape(classes, classes),
        logits=logits,
    )
