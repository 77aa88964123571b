"""From a checkpoint of one's own to a backbone's tensors: what can be mended is, the rest is told.

A head, what only training needs, a wrapper's prefix and half precision are no obstacle. Everything
else that is not as timm has it is refused with what to do.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from torch import Tensor

from adapterbank.backbones.loading import read_weights
from adapterbank.errors import InputError, IntegrityError

_FIRST = "patch_embed.proj.weight"  # (D, channels, patch, patch); every ViT has one
# What a classifier, masked training and distillation have beside the backbone.
_BESIDE = re.compile(r"(head|head_dist|fc|classifier|mask_token|decoder_\w+)(\.|$)")
_PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_CONVERT = "import sys, torch; from safetensors.torch import save_file; c = torch.load(sys.argv[1], map_location='cpu', weights_only=True); c = c.get('state_dict') or c.get('model') or c; save_file({k: v.clone() for k, v in c.items() if torch.is_tensor(v)}, sys.argv[2])"  # noqa: E501  # to be copied


def read_checkpoint(path: Path, *, fix: str | None = None) -> dict[str, Tensor]:
    """Read a checkpoint's backbone: timm's names without a prefix, float32, every number finite.

    Args:
        path: a safetensors file.
        fix: what mends a file that is not there or damaged.

    Raises:
        InputError: no such file, one that only pickle reads, or one of no ViT under timm's names.
        IntegrityError: it is damaged, or has numbers that no backbone can have.
    """
    if path.is_file():
        _refuse_pickle(path)
    state = _without_prefix(read_weights(path, fix=fix), path)
    state = {name: tensor for name, tensor in state.items() if not _BESIDE.match(name)}
    for name, tensor in sorted(state.items()):
        if not tensor.is_floating_point():
            raise InputError(
                f"{path}: {name} is of {str(tensor.dtype).removeprefix('torch.')} numbers",
                fix="export the checkpoint in float32, not quantised",
            )
        state[name] = tensor.float()
        wrong = int((~state[name].isfinite()).sum())
        if wrong:
            raise IntegrityError(
                f"{path}: {name} holds {wrong:,} NaN or infinite values",
                fix="use a checkpoint from before its training diverged",
            )
    if state[_FIRST].ndim == 4 and state[_FIRST].shape[1] != 3:
        raise InputError(
            f"{path}: it takes images of {state[_FIRST].shape[1]} channels; a bank's have 3",
            fix=f"give {_FIRST} 3 channels: weight.mean(1, keepdim=True).expand(-1, 3, -1, -1) / 3",
        )
    return state


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_PICKLED):
        words = (sys.executable, "-c", _CONVERT, str(path), str(path.with_suffix(".safetensors")))
        raise InputError(
            f"{path} is a pickled checkpoint: what can run code is never read",
            fix=f"{shlex.join(words)}, then name the second file",
        )


def _without_prefix(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Take away what wrappers put before names, and what is not below it."""
    prefixes = sorted(name.removesuffix(_FIRST) for name in state if name.endswith(_FIRST))
    if len(prefixes) != 1:
        raise InputError(
            f"{path} has {len(prefixes)} tensors called {_FIRST}, expected 1: it is not one ViT"
            f" under timm's names{': ' if prefixes else ''}{', '.join(prefixes[:4])}",
            fix="name the tensors as timm does, and keep those of one network",
        )
    prefix = prefixes[0]
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
