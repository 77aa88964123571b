"""The bank's own: class means under one shrunk covariance, against a background."""

from __future__ import annotations

from dataclasses import dataclass

from adapterbank.routing.router import Router, Yardstick
from adapterbank.routing.router import build as build_router
from benchmarks.routers.base import Need, Queries, Scored, Sources

NEEDS: tuple[Need, ...] = ("records",)


@dataclass(frozen=True, kw_only=True, eq=False)
class Relative:
    """A :class:`~adapterbank.routing.router.Router` under the catalogue's protocol."""

    router: Router

    def score(self, queries: Queries) -> Scored:
        """Score images under every task."""
        found = self.router.judge(queries.features)
        return Scored(tasks=found.scores, known=found.known)


def build(sources: Sources) -> Relative:
    """Take the covariance of the reference, or of all tasks together."""
    yardstick = None
    if sources.reference is not None:
        yardstick = Yardstick(record=sources.reference, source="reference")
    return Relative(router=build_router(sources.records, backbone="", yardstick=yardstick))
