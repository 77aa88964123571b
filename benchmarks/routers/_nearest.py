"""Nearest centre: what three baselines share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adapterbank.routing.record import Floats
from benchmarks.routers.base import Queries, Scored, joined


@dataclass(frozen=True, kw_only=True, eq=False)
class NearestCentre:
    """Score a task by the negative squared distance to the nearest of its (n, L·D) centres."""

    centres: Sequence[Floats]

    def score(self, queries: Queries) -> Scored:
        """Score images under every task."""
        x = joined(queries.features)
        columns = []
        for centres in self.centres:
            squared = (x**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
            columns.append((squared - 2 * x @ centres.T).min(axis=1))
        scores = -np.stack(columns, axis=1)
        return Scored(tasks=scores, familiar=scores)
