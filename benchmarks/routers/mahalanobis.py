"""The bank's own: class means under one shrunk covariance, against a background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adapterbank.routing.router import Router, Yardstick
from adapterbank.routing.router import build as build_router
from adapterbank.routing.scores import unit_rows
from benchmarks.routers.base import Need, Queries, Scored, Sources

NEEDS: tuple[Need, ...] = ("records",)


@dataclass(frozen=True, kw_only=True, eq=False)
class Relative:
    """A :class:`~adapterbank.routing.router.Router` under the catalogue's protocol."""

    router: Router

    def score(self, queries: Queries) -> Scored:
        """Score images under every task."""
        rows = unit_rows(queries.features)
        familiar = [self.router.familiarity(rows, task) for task in self.router.tasks]
        return Scored(
            tasks=self.router.judge(queries.features).scores, familiar=np.stack(familiar, axis=1)
        )


def build(sources: Sources) -> Relative:
    """Take the covariance of the reference, or of all tasks together."""
    yardstick = None
    if sources.reference is not None:
        yardstick = Yardstick(record=sources.reference, source="reference")
    return Relative(router=build_router(sources.records, backbone="", yardstick=yardstick))
