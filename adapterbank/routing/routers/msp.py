"""The largest probability of each head (Hendrycks & Gimpel, ICLR 2017)."""

from __future__ import annotations

from scipy.special import softmax

from adapterbank.routing.base import Need, Sources
from adapterbank.routing.routers._heads import HeadConfidence
from adapterbank.routing.statistics import Floats

__all__ = ["NEEDS", "build"]

NEEDS: tuple[Need, ...] = ("logits",)


def build(sources: Sources) -> HeadConfidence:
    """Need nothing but the adapters."""
    return HeadConfidence(tasks=sources.tasks, confidence=_confidence)


def _confidence(logits: Floats) -> Floats:
    found: Floats = softmax(logits, axis=1).max(axis=1)
    return found
