"""What a configuration would cost when it is served, known before a trial of it starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from adapterbank.backbones.base import Backbone
from adapterbank.errors import InputError
from adapterbank.inference.artifact import build_adapter
from adapterbank.inference.latency import blank_images, relative_latency
from adapterbank.methods.base import Adapter, Folded, count_parameters


class CostTable:
    """Costs by method and hyper-parameters.

    Latency is a ratio measured turn by turn in this process, because a shared machine's
    milliseconds mean little. What is measured once stays so: a search that goes on must refuse
    what it refused before.

    Args:
        backbone: the bank's.
        known: what an earlier process measured, see :meth:`as_json`.
    """

    def __init__(self, backbone: Backbone, known: Mapping[str, float] | None = None) -> None:
        self._backbone = backbone
        self._latencies = dict(known or {})
        self._counts: dict[str, int] = {}
        self._images = blank_images(backbone)

    def count(self, method: str, hyper: Mapping[str, Any], classes: int) -> int | None:
        """Trained numbers without the head; None where the configuration does not fit."""
        key = _key(method, hyper)
        if key not in self._counts:
            try:
                adapter = self._build(method, hyper, classes)
            except InputError:
                return None
            self._counts[key] = count_parameters(adapter)[0]
        return self._counts[key]

    def latency(self, method: str, hyper: Mapping[str, Any], classes: int) -> float:
        """Forward time over the bare backbone's; measured once for each shape."""
        with torch.no_grad():
            folded = self._build(method, hyper, classes).to(self._backbone.device).fold()
        # What folds to equal shapes costs the same: a kernel's size, for one, is gone by then.
        key = f"{method} {sorted(tuple(tensor.shape) for tensor in folded.tensors())}"
        if key not in self._latencies:
            self._latencies[key] = round(self._measure(folded), 4)
        return self._latencies[key]

    def as_json(self) -> dict[str, float]:
        """What was measured, for a later process."""
        return dict(sorted(self._latencies.items()))

    def _build(self, method: str, hyper: Mapping[str, Any], classes: int) -> Adapter:
        return build_adapter(
            method, hyper, self._backbone.traits, classes, seed=0, where="the search space"
        )

    def _measure(self, folded: Folded) -> float:
        return relative_latency(self._backbone, folded, self._images, min)


def _key(method: str, hyper: Mapping[str, Any]) -> str:
    return f"{method} {json.dumps(dict(hyper), sort_keys=True, default=str)}"
