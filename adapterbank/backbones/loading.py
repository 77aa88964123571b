"""Build a frozen backbone from tensors that are already on this machine.

Kept apart from :mod:`adapterbank.backbones.sources`, which fetches them, so that predicting
imports no downloader.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from adapterbank.backbones.fingerprint import fingerprint
from adapterbank.backbones.identity import parse_arch
from adapterbank.backbones.timm_vit import TimmViT, build_vit
from adapterbank.errors import InputError, IntegrityError
from adapterbank.records import InputSpec

_DEVICE = re.compile(r"(?P<kind>auto|cpu|cuda)|cuda:(?P<index>[0-9]+)")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Tensors of a backbone, before it is built for one input size.

    ``uri`` names them without saying where this machine keeps them: versions hash it. ``arch`` is
    timm's name, with its constructor's options as a query
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
    got = fingerprint(source.state, spec, name, options)
    if expected is not None and got != expected:
        raise IntegrityError(
            f"backbone {source.uri}: got fingerprint {got[:16]}…, expected {expected[:16]}…",
            fix="adapterbank backbone fetch --force",
        )
    with checked_options(source.arch):
        return build_vit(name, options, source.state, spec, got)


def pick_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` into a device; auto prefers a GPU.

    Raises:
        InputError: it is none of these, or a GPU that this machine does not have.
    """
    match = _DEVICE.fullmatch(str(name))
    if match is None:
        raise InputError(f"device {name!r}: expected auto, cpu, cuda or cuda:N")
    if match["kind"] == "cpu":
        return torch.device("cpu")
    gpus = torch.cuda.device_count()
    if match["kind"] == "auto":
        return torch.device("cuda" if gpus else "cpu")
    index = match["index"] or "0"
    if len(index) > 4 or int(index) >= gpus:
        raise InputError(
            f"device {name[:12]!r}: this machine has {gpus} usable GPUs", fix="use auto or cpu"
        )
    return torch.device(f"cuda:{int(index)}" if match["index"] else "cuda")


@contextmanager
def checked_options(arch: str) -> Iterator[None]:
    """Blame an architecture's options for what timm's arithmetic with them raises."""
    try:
        yield
    except (ArithmeticError, LookupError, ValueError) as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise InputError(f"timm cannot build {arch}: {reason}") from error


def read_weights(path: Path, *, fix: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file of a backbone's tensors.

    Args:
        path: the file.
        fix: what mends a file that is not there or damaged; fetching the backbone, if None.

    Raises:
        InputError: no such file.
        IntegrityError: it is not a safetensors file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file", fix=fix or "adapterbank backbone fetch")
    try:
        return load_file(path)
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        # The others are torch's, of a shape in the header that no tensor can have.
        raise IntegrityError(
            f"{path}: not a safetensors file: {error}",
            fix=fix or "adapterbank backbone fetch --force",
        ) from error
