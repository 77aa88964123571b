"""The log-sum-exp of each head's logits (Liu et al., NeurIPS 2020).

Heads that were trained apart have no common scale, so that theirs cannot really be compared.
"""

from __future__ import annotations

from scipy.special import logsumexp

from adapterbank.routing.base import Need, Sources
from adapterbank.routing.routers._heads import HeadConfidence
from adapterbank.routing.statistics import Floats

__all__ = ["NEEDS", "build"]

NEEDS: tuple[Need, ...] = ("logits",)


def build(sources: Sources) -> HeadConfidence:
    """Need nothing but the adapters."""
    return HeadConfidence(tasks=sources.tasks, confidence=_confidence)


def _confidence(logits: Floats) -> Floats:
    found: Floats = logsumexp(logits, axis=1)
    return found
