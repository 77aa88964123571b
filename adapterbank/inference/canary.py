"""A canary: a few fixed images and the logits a version gave when it was packed.

Hashes prove that bytes are the same; they cannot see that another release of a library now
computes something else from them. Replaying the canary at load can.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save as save_tensors
from torch import Tensor

from adapterbank.backbones.base import Backbone
from adapterbank.data.images import normalise, to_pixels
from adapterbank.errors import CanaryMismatch
from adapterbank.methods.base import Folded
from adapterbank.model import forward
from adapterbank.records import InputSpec
from adapterbank.registry.checks import CANARY, read_canary

CANARY_IMAGES = 2
# Of the largest logit. Between BLAS kernels and thread counts float32 differs by 1e-5 or less;
# a changed resampling, normalisation or attention by 1e-2 or more.
TOLERANCE = 1e-3
# Of a canary that a GPU replays, whichever device packed it: there float32 differs from a CPU's by
# 2e-6. The TF32 that is switched off with the backbone keeps 10 of float32's 23 bits, and is
# refused like any other change of what is computed.
GPU_TOLERANCE = 1e-4


def canary_images(spec: InputSpec) -> tuple[Image.Image, ...]:
    """Two pictures from integer arithmetic alone, equal everywhere for ever.

    They are larger than the input and of another aspect, so that a resampling which changed
    changes what is answered.
    """
    height, width = spec.size[0] * 5 // 4 + 3, spec.size[1] * 3 // 2 + 1
    n, y, x, c = np.ogrid[:CANARY_IMAGES, :height, :width, :3]
    wave = (y * (n + 2) + x * (c + 3)) * 5 + (x * y * (n + 1)) // 7
    # Fold 0..511 back into 0..255: ramps without jumps, unlike a plain remainder.
    drawn = np.abs(wave % 511 - 255).astype(np.uint8)
    return tuple(Image.fromarray(picture) for picture in drawn)


def tolerance(device: torch.device) -> float:
    """How much a canary may differ when it is replayed on a device, of the largest logit."""
    return TOLERANCE if device.type == "cpu" else GPU_TOLERANCE


@torch.inference_mode()
def _logits(backbone: Backbone, folded: Folded) -> Tensor:
    spec = backbone.spec
    pixels = torch.stack([to_pixels(image, spec) for image in canary_images(spec)])
    images = normalise(pixels.to(backbone.device), spec)
    return forward.forward(backbone, images, folded).cpu()


def pack_canary(backbone: Backbone, folded: Folded) -> bytes:
    """Run the canary and keep its logits, as safetensors bytes."""
    return save_tensors({"logits": _logits(backbone, folded).numpy()})


def check_canary(backbone: Backbone, folded: Folded, packed: bytes, *, where: str) -> float:
    """Replay a canary.

    Args:
        backbone: loaded.
        folded: the adapter, on the backbone's device.
        packed: what :func:`pack_canary` gave.
        where: the version, for messages.

    Returns:
        The largest difference, as a fraction of the largest logit.

    Raises:
        CanaryMismatch: it is beyond tolerance; the message says by how much.
        IntegrityError: ``packed`` holds no logits.
    """
    classes = len(folded.head_bias)
    expected = torch.from_numpy(read_canary(packed, classes, where=f"{where}/{CANARY}"))
    got = _logits(backbone, folded)
    if got.shape != expected.shape:
        raise CanaryMismatch(
            f"{where}: canary logits have shape {tuple(got.shape)}, expected"
            f" {tuple(expected.shape)}"
        )
    difference = float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
    allowed = tolerance(backbone.device)
    if not difference <= allowed:  # also true of NaN
        raise CanaryMismatch(
            f"{where}: the same bytes answer differently than when they were published: canary"
            f" logits differ by {difference:.2e} of the largest, allowed {allowed:.0e}"
            f" on {backbone.device.type}. A library or the processor changed how they are computed",
            fix="install the versions under 'libraries' in the version's adapter_config.json",
        )
    return difference
