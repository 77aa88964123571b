"""The log-sum-exp of each head's logits (Liu et al., NeurIPS 2020).

Heads that were trained apart have no common scale, so that theirs cannot really be compared.
"""

from __future__ import annotations

from scipy.special import logsumexp

from adapterbank.routing.record import Floats
from benchmarks.routers._heads import HeadConfidence
from benchmarks.routers.base import Need, Sources

NEEDS: tuple[Need, ...] = ("logits",)


def build(sources: Sources) -> HeadConfidence:
    """Need nothing but the adapters."""
    return HeadConfidence(tasks=sources.tasks, confidence=_confidence)


def _confidence(logits: Floats) -> Floats:
    found: Floats = logsumexp(logits, axis=1)
    return found
