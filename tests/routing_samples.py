"""Drawn features that routers are tested on: tasks of classes with common, anisotropic noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from adapterbank.config.router import RouterConfig
from adapterbank.routing.record import RoutingRecord, as_record, task_record, triangle
from adapterbank.routing.router import Router, Yardstick, build

BACKBONE = "ab" * 32
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Where tasks come from: a domain for each, classes in it, one noise for all.

    Noise is far stronger in some directions than between tasks, so that distances which do not
    know it go wrong; its tails are heavy, and features have any length. Each block draws anew.
    """

    blocks: tuple[int, ...] = (6, 12)
    width: int = 32
    classes: int = 4
    domain: float = 1.0
    strongest: float = 1.0  # logarithm of the noise in the worst direction
    seed: int = 0

    def draw(self, task: int, each: int, part: int = 0) -> tuple[Array, NDArray[np.int64]]:
        """Draw ``each`` features (n, L, D) of each class; every ``part`` is a fresh sample."""
        labels = np.repeat(np.arange(self.classes), each)
        layers = [self._after(block, task, labels, part) for block in self.blocks]
        return np.stack(layers, axis=1), labels

    def _after(self, block: int, task: int, labels: NDArray[np.int64], part: int) -> Array:
        shared = np.random.default_rng([self.seed, block, 99])
        own = np.random.default_rng([self.seed, block, task])
        fresh = np.random.default_rng([self.seed, block, task, 7, part])
        scale = np.exp(shared.uniform(-1.5, self.strongest, self.width))
        turn, _ = np.linalg.qr(shared.standard_normal((self.width, self.width)))
        centre = 3 * np.ones(self.width) + self.domain * own.standard_normal(self.width)
        means = centre + own.standard_normal((self.classes, self.width))
        noise = fresh.standard_t(8, (len(labels), self.width)) * scale @ turn.T
        lengths = np.exp(0.3 * fresh.standard_normal(len(labels)))
        drawn: Array = (means[labels] + noise) * lengths[:, None]
        return drawn

    def record(
        self, task: int, each: int = 20, held: int = 16, *, earlier: bool = False
    ) -> RoutingRecord:
        """Summarise a sample of a task, as training does, or as it did in an earlier layout."""
        features, labels = self.draw(task, each)
        held_out, _ = self.draw(task, held, part=1)
        if earlier:
            return as_record(earlier_record(features, labels, held_out, self.blocks), where="x")
        arrays = task_record(
            torch.from_numpy(features), torch.from_numpy(labels), self.classes,
            torch.from_numpy(held_out), self.blocks,
        )  # fmt: skip
        return as_record(arrays, where=f"task {task}")

    def records(self, count: int, each: int = 20) -> dict[str, RoutingRecord]:
        """Summarise several tasks."""
        return {f"t{task:03}": self.record(task, each) for task in range(count)}


def earlier_record(
    features: Array, labels: NDArray[np.int64], held: Array, blocks: tuple[int, ...]
) -> dict[str, NDArray[np.generic]]:
    """A record as versions stored it before: float64, whole triangles, with fourth moments."""
    z, rows = (x / np.linalg.norm(x, axis=2, keepdims=True) for x in (features, held))
    means = np.stack([z[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    centred = (z - means[labels]).swapaxes(0, 1)
    return {
        "blocks": np.array(blocks),
        "counts": np.bincount(labels),
        "means": np.ascontiguousarray(means.swapaxes(0, 1)),
        "scatter": np.stack([triangle(layer.T @ layer) for layer in centred]),
        "fourth": ((centred**2).sum(axis=2) ** 2).sum(axis=1),
        "calibration": np.ascontiguousarray(rows.swapaxes(0, 1)).astype(np.float16),
    }


def built(
    records: dict[str, RoutingRecord],
    *,
    reference: RoutingRecord | None = None,
    alpha: float = 0.05,
) -> Router:
    """Build a router, isolated where there is a reference."""
    sources = {task: f"{index:064x}" for index, task in enumerate(sorted(records))}
    yardstick = Yardstick(record=reference, source="reference") if reference else None
    return build(
        records,
        backbone=BACKBONE,
        config=RouterConfig(alpha=alpha),
        yardstick=yardstick,
        sources=sources,
    )


def auroc(known: Array, unknown: Array) -> float:
    """Chance that a known one scores higher than an unknown one; ties count half."""
    truth = np.repeat([1, 0], [len(known), len(unknown)])
    return float(roc_auc_score(truth, np.concatenate([known, unknown])))
