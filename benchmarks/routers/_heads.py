"""Confidence of each task's own head: what two baselines share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adapterbank.routing.record import Floats
from benchmarks.routers.base import Queries, Scored


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadConfidence:
    """Ask every task's adapter, which takes a pass each, and believe the surest."""

    tasks: tuple[str, ...]
    confidence: Callable[[Floats], Floats]

    def score(self, queries: Queries) -> Scored:
        """Score images under every task."""
        columns = [self.confidence(queries.logits[task]) for task in self.tasks]
        scores = np.stack(columns, axis=1)
        return Scored(tasks=scores, familiar=scores)
