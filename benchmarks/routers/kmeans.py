"""Five k-means centres a task, as S-Prompts (Wang, Huang & Hong, NeurIPS 2022) route.

It needs raw training features; without them it clusters the stored calibration features, which
are held-out images, and fewer.
"""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans

from adapterbank.routing.record import Floats
from benchmarks.routers._nearest import NearestCentre
from benchmarks.routers.base import Need, Sources, joined

NEEDS: tuple[Need, ...] = ("records", "features")
CENTRES = 5


def build(sources: Sources) -> NearestCentre:
    """Cluster each task's features; the seed is fixed, the order of images is the record's."""
    centres = []
    for task in sources.tasks:
        given, record = sources.features.get(task), sources.records[task]
        rows = record.calibration(record.blocks) if given is None else given[0]
        centres.append(_cluster(joined(rows)))
    return NearestCentre(centres=centres)


def _cluster(rows: Floats) -> Floats:
    different = len(np.unique(rows, axis=0))
    clusters = KMeans(min(CENTRES, different), n_init=1, random_state=0).fit(rows)
    return np.asarray(clusters.cluster_centers_)
