"""One mean a task: the nearest wins."""

from __future__ import annotations

from adapterbank.routing.base import Need, Sources
from adapterbank.routing.routers._nearest import NearestCentre

__all__ = ["NEEDS", "build"]

NEEDS: tuple[Need, ...] = ("records",)


def build(sources: Sources) -> NearestCentre:
    """Take the mean of all training images of each task."""
    return NearestCentre(centres=[sources.records[task].mean[None] for task in sources.tasks])
