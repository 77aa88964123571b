"""One mean a class: the task of the nearest wins."""

from __future__ import annotations

from adapterbank.routing.base import Need, Sources, class_means
from adapterbank.routing.routers._nearest import NearestCentre

__all__ = ["NEEDS", "build"]

NEEDS: tuple[Need, ...] = ("records",)


def build(sources: Sources) -> NearestCentre:
    """Take the class means that the records store."""
    return NearestCentre(centres=[class_means(sources.records[task]) for task in sources.tasks])
