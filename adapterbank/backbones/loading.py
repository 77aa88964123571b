"""Build a frozen backbone from tensors that are already on this machine.

Kept apart from :mod:`adapterbank.backbones.sources`, which fetches them, so that predicting
imports no downloader.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from adapterbank.backbones.fingerprint import fingerprint
from adapterbank.backbones.timm_vit import TimmViT, build_vit
from adapterbank.errors import InputError, IntegrityError
from adapterbank.records import InputSpec

__all__ = ["Source", "load", "parse_arch", "pick_device", "read_weights"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Tensors of a backbone, before it is built for one input size.

    ``arch`` is timm's name, with its constructor's options as a query
    (``vit_tiny_patch16_224?depth=2``), so that the two travel as one string.
    """

    uri: str
    arch: str
    state: dict[str, Tensor] = field(repr=False)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


def load(
    source: Source | Path, spec: InputSpec, *, arch: str | None = None, expected: str | None = None
) -> TimmViT:
    """Build a frozen backbone for ``spec``.

    Args:
        source: fetched tensors, or a safetensors file of them together with ``arch``.
        spec: input size and normalisation.
        arch: needed with a file.
        expected: fingerprint the tensors must have.

    Raises:
        IntegrityError: the file is unreadable, or has another fingerprint than expected.
    """
    if isinstance(source, Path):
        if arch is None:
            raise InputError(f"{source}: a weights file needs its architecture")
        source = Source(uri=f"file://{source}", arch=arch, state=read_weights(source))
    name, options = parse_arch(source.arch)
    got = fingerprint(source.state, spec)
    if expected is not None and got != expected:
        raise IntegrityError(
            f"backbone {source.uri}: got fingerprint {got[:16]}…, expected {expected[:16]}…",
            fix="adapterbank backbone fetch --force",
        )
    return build_vit(name, options, source.state, spec, got)


def pick_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` into a device; auto prefers a GPU.

    Raises:
        InputError: a GPU is asked for and there is none.
    """
    found = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if found else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r}: expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= found:
        raise InputError(f"device {name!r}: this machine has {found} usable GPUs")
    return device


def parse_arch(arch: str) -> tuple[str, dict[str, Any]]:
    """Split ``name?option=value&…``; values are read as YAML scalars."""
    name, _, query = arch.partition("?")
    return name, {key: yaml.safe_load(value) for key, value in parse_qsl(query)}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file of a backbone's tensors.

    Raises:
        InputError: no such file.
        IntegrityError: it is not a safetensors file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file", fix="adapterbank backbone fetch")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise IntegrityError(
            f"{path}: not a safetensors file: {error}", fix="adapterbank backbone fetch --force"
        ) from error
