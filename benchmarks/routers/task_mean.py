"""One mean a task: the nearest wins."""

from __future__ import annotations

from adapterbank.routing.record import Floats, RoutingRecord
from benchmarks.routers._nearest import NearestCentre
from benchmarks.routers.base import Need, Sources, class_means

NEEDS: tuple[Need, ...] = ("records",)


def build(sources: Sources) -> NearestCentre:
    """Take the mean of all training images of each task."""
    return NearestCentre(centres=[_mean(sources.records[task]) for task in sources.tasks])


def _mean(record: RoutingRecord) -> Floats:
    weights = record.counts / record.counts.sum()
    mean: Floats = weights[None] @ class_means(record)
    return mean
