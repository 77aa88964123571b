"""What a router of the catalogue is: one file in ``routers`` with ``NEEDS`` and ``build``.

All but ``mahalanobis`` exist to be compared with (``benchmarks/router.py``); some need more than
the records that versions store, and say so in ``NEEDS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from adapterbank.routing.record import Floats, RoutingRecord

Need: TypeAlias = Literal["records", "features", "logits"]
"""``records`` alone are stored with versions; ``features`` are raw training features, which a
bank does not keep; ``logits`` are those of every task's adapter for each image: T passes."""

Labelled: TypeAlias = tuple[Floats, NDArray[np.int64]]
"""Training features (n, L, D), each of length one, and their labels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sources:
    """What routers may be built from, by task, and a record of none of them to measure by."""

    records: Mapping[str, RoutingRecord]
    features: Mapping[str, Labelled] = field(default_factory=dict)
    reference: RoutingRecord | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names, sorted."""
        return tuple(sorted(self.records))


@dataclass(frozen=True, kw_only=True, eq=False)
class Queries:
    """Images to route: frozen features (B, L, D) after each block, and logits (B, C) by task."""

    features: Floats
    logits: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """Larger is likelier: (B, T) by task in the order of names; and how familiar it is to each."""

    tasks: Floats
    familiar: Floats

    @property
    def chosen(self) -> NDArray[np.int64]:
        """(B,) the best task; ties go to the first by name."""
        best: NDArray[np.int64] = self.tasks.argmax(axis=1)
        return best

    @property
    def known(self) -> Floats:
        """(B,) how familiar it is to the task that was chosen."""
        found: Floats = self.familiar[np.arange(len(self.tasks)), self.chosen]
        return found


class TaskScorer(Protocol):
    """A built router."""

    def score(self, queries: Queries) -> Scored:
        """Score images under every task."""


def joined(features: Floats) -> Floats:
    """Lay features (…, L, D) of length one side by side: (…, L·D), of length one again.

    That is how routers that know of one feature take several blocks.
    """
    layers = features.shape[-2]
    side_by_side: Floats = features.reshape(*features.shape[:-2], -1) / np.sqrt(layers)
    return side_by_side


def class_means(record: RoutingRecord) -> Floats:
    """(C, L·D) means of the joined training features of each class."""
    return joined(np.stack([layer.means for layer in record.layers.values()], axis=1))


class RouterModule(Protocol):
    """A module of ``benchmarks.routers``."""

    NEEDS: tuple[Need, ...]

    def build(self, sources: Sources) -> TaskScorer:
        """Build a router from its sources."""
