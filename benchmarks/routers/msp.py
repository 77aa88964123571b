"""The largest probability of each head (Hendrycks & Gimpel, ICLR 2017)."""

from __future__ import annotations

from scipy.special import softmax

from adapterbank.routing.record import Floats
from benchmarks.routers._heads import HeadConfidence
from benchmarks.routers.base import Need, Sources

NEEDS: tuple[Need, ...] = ("logits",)


def build(sources: Sources) -> HeadConfidence:
    """Need nothing but the adapters."""
    return HeadConfidence(tasks=sources.tasks, confidence=_confidence)


def _confidence(logits: Floats) -> Floats:
    found: Floats = softmax(logits, axis=1).max(axis=1)
    return found
