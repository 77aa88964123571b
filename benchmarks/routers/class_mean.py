"""One mean a class: the task of the nearest wins."""

from __future__ import annotations

from benchmarks.routers._nearest import NearestCentre
from benchmarks.routers.base import Need, Sources, class_means

NEEDS: tuple[Need, ...] = ("records",)


def build(sources: Sources) -> NearestCentre:
    """Take the class means that the records store."""
    return NearestCentre(centres=[class_means(sources.records[task]) for task in sources.tasks])
