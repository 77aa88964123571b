"""Five k-means centres a task, as S-Prompts (Wang, Huang & Hong, NeurIPS 2022) route.

It needs raw training features; without them it clusters the stored calibration features, which
are held-out images, and fewer.
"""

from __future__ import annotations

import numpy as np

from adapterbank.routing.statistics import Floats
from benchmarks.routers._nearest import NearestCentre
from benchmarks.routers.base import Need, Sources, joined

NEEDS: tuple[Need, ...] = ("records", "features")
CENTRES = 5
_ROUNDS = 50


def build(sources: Sources) -> NearestCentre:
    """Cluster each task's features; the seed is fixed, the order of images is the record's."""
    centres = []
    for task in sources.tasks:
        given, record = sources.features.get(task), sources.records[task]
        rows = record.calibration(record.blocks) if given is None else given[0]
        centres.append(_cluster(joined(rows), np.random.default_rng(0)))
    return NearestCentre(centres=centres)


def _cluster(rows: Floats, generator: np.random.Generator) -> Floats:
    """Lloyd's rounds from k-means++ (Arthur & Vassilvitskii, 2007) starts."""
    centres = rows[[int(generator.integers(len(rows)))]]
    while len(centres) < min(CENTRES, len(rows)):
        nearest = _squared(rows, centres).min(axis=1)
        total = nearest.sum()
        if total <= 0:  # fewer different images than centres
            break
        pick = int(np.searchsorted(nearest.cumsum(), generator.random() * total))
        centres = np.concatenate([centres, rows[[min(pick, len(rows) - 1)]]])
    for _ in range(_ROUNDS):
        owner = _squared(rows, centres).argmin(axis=1)
        moved = np.stack([
            rows[owner == k].mean(axis=0) if (owner == k).any() else centres[k]
            for k in range(len(centres))
        ])  # fmt: skip
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _squared(rows: Floats, centres: Floats) -> Floats:
    found: Floats = (rows**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    return np.maximum(found - 2 * rows @ centres.T, 0.0)
