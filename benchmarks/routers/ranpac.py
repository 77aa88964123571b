"""A ridge head on a fixed random expansion, as RanPAC (McDonnell et al., NeurIPS 2023) has it.

Targets are tasks, not classes. A bank would have to keep the (M, M) Gram matrix of each task to
be able to remove it; here it is summed from raw features in the order of names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve

from adapterbank.routing.metric import factorise
from adapterbank.routing.record import Floats
from benchmarks.routers.base import Need, Queries, Scored, Sources, joined

NEEDS: tuple[Need, ...] = ("features",)
_WIDTH = 2048  # M
_RIDGE = 1e-3  # of the mean of the Gram matrix's diagonal


@dataclass(frozen=True, kw_only=True, eq=False)
class RandomRidge:
    """Scores are regression outputs: about 1 for the right task, 0 for others."""

    projection: Floats  # (L·D, M)
    weights: Floats  # (M, T)

    def score(self, queries: Queries) -> Scored:
        """Score images under every task."""
        scores = expand(joined(queries.features), self.projection) @ self.weights
        return Scored(tasks=scores, familiar=scores)


def build(sources: Sources) -> RandomRidge:
    """Solve one ridge regression for all tasks; a task's images weigh as much as another's."""
    width = joined(sources.features[sources.tasks[0]][0]).shape[1]
    projection = np.random.default_rng(0).standard_normal((width, _WIDTH))
    gram, targets = np.zeros((_WIDTH, _WIDTH)), []
    for task in sources.tasks:
        h = expand(joined(sources.features[task][0]), projection)
        gram += h.T @ h / len(h)
        targets.append(h.mean(axis=0))
    gram[np.diag_indices(_WIDTH)] += _RIDGE * float(np.trace(gram)) / _WIDTH
    factor, _ = factorise(gram)
    weights = cho_solve((factor, True), np.stack(targets, axis=1))
    return RandomRidge(projection=projection, weights=weights)


def expand(features: Floats, projection: Floats) -> Floats:
    """Map (n, L·D) to (n, M) non-negative random features."""
    return np.maximum(features @ projection, 0.0)
