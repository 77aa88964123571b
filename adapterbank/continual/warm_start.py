"""Start a new adapter from another task's, next to one from scratch, and keep the better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from adapterbank.continual.parents import method_tensors
from adapterbank.methods.base import Adapter
from adapterbank.records import Score

__all__ = ["copy_tensors", "epochs_to", "is_better"]


def copy_tensors(adapter: Adapter, parent: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Copy a parent's method tensors of equal shape into an adapter; its head stays.

    Returns:
        Names of the tensors that were copied.
    """
    own = method_tensors(adapter)
    equal = [name for name in own if name in parent and own[name].shape == parent[name].shape]
    with torch.no_grad():
        for name in equal:
            own[name].copy_(parent[name])
    return tuple(equal)


def is_better(warm: Score, scratch: Score) -> bool:
    """Whether the warm arm is kept: it has more right answers; a tie is the scratch arm's."""
    return warm.accuracy > scratch.accuracy


def epochs_to(correct: int, reached: Sequence[int]) -> int | None:
    """Return the first epoch, from 1, with at least so many right answers; None if there is none."""
    return next((n for n, right in enumerate(reached, start=1) if right >= correct), None)
