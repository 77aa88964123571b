"""What an adapter adds to a forward, as a ratio to the bare backbone.

A shared machine's milliseconds mean little; two forwards that take turns in one process are slowed
alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from adapterbank.backbones.base import Backbone
from adapterbank.methods.base import Folded
from adapterbank.model import forward

_BATCH = 8  # images of one measured forward
_ROUNDS = 9


def blank_images(backbone: Backbone) -> Tensor:
    """A batch of black images of the bank's size, on the backbone's device."""
    height, width = backbone.spec.size
    return torch.zeros(_BATCH, 3, height, width, device=backbone.device)


@torch.inference_mode()
def relative_latency(
    backbone: Backbone,
    folded: Folded,
    images: Tensor,
    middle: Callable[[Sequence[float]], float] = statistics.median,
) -> float:
    """Forward time under an adapter over the bare backbone's, measured turn by turn.

    Args:
        backbone: the bank's.
        folded: the adapter, on the backbone's device.
        images: (B, 3, H, W) normalised.
        middle: makes one figure of the turns; ``min`` takes the least disturbed.
    """
    times: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(_ROUNDS + 1):
        for adapted in (True, False):
            begun = time.perf_counter()
            forward.features(backbone, images, folded if adapted else None)
            if images.is_cuda:
                torch.cuda.synchronize()
            if turn:  # the first warms up
                times[adapted].append(time.perf_counter() - begun)
    return middle(times[True]) / middle(times[False])
