"""What a stored backbone *is*, told from its file alone, without torch.

:mod:`.fingerprint` says the same of tensors in memory.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from adapterbank.config.yaml import read_yaml
from adapterbank.errors import ConfigError, InputError, IntegrityError, NotPulled
from adapterbank.reading import read_document, read_object
from adapterbank.records import InputSpec

# safetensors' names of the numbers, and torch's with their bytes
_KINDS: Mapping[str, tuple[str, int]] = {
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2),
    "I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1),
    "U8": ("uint8", 1), "BOOL": ("bool", 1),
}  # fmt: skip
_HEADER_LIMIT = 1 << 22
_AXES = 8  # the product of very many takes minutes
# Options of timm's factory rather than of a network; they read other files, pickled ones too.
_FACTORY = ("cache_dir", "checkpoint_path", "features_only", "pretrained", "pretrained_cfg",
            "pretrained_cfg_overlay")  # fmt: skip
_Size = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=ConfigDict(strict=True))
class _Entry:
    dtype: Literal["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"]
    shape: Annotated[tuple[_Size, ...], Field(max_length=_AXES)]
    data_offsets: tuple[_Size, _Size]


def identify(
    tensors: Iterable[tuple[str, str, tuple[int, ...], Any]],
    spec: InputSpec,
    arch: str,
    options: Mapping[str, Any],
) -> str:
    """Hash name, dtype, shape and bytes of every tensor, which come sorted, then spec and arch.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    digest = hashlib.sha256()
    for name, dtype, shape, data in tensors:
        digest.update(f"{name}|{dtype}|{shape}|".encode())
        digest.update(data)
    rest = [asdict(spec), arch, dict(options)]
    digest.update(json.dumps(rest, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def check_weights(path: Path, spec: InputSpec, arch: str, expected: str) -> None:
    """Check every byte of a backbone's weights against its fingerprint.

    Args:
        path: the safetensors file.
        spec: how pixels become the backbone's input.
        arch: timm's name of the architecture with its options.
        expected: the fingerprint.

    Raises:
        IntegrityError: it is no safetensors file, or of another fingerprint.
        NotPulled: there is no such file.
    """
    fix = "adapterbank backbone fetch --force"
    name, options = parse_arch(arch)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            got = identify(_stored(data, str(path)), spec, name, options)
    except FileNotFoundError as error:
        raise NotPulled(
            f"{path} is not here: not pulled yet, or deleted; without the backbone's weights no"
            " version answers",
            fix="adapterbank pull, or adapterbank backbone fetch where DVC does not keep it",
        ) from error
    except (IntegrityError, OSError, ValueError) as error:  # ValueError: an empty file
        raise IntegrityError(f"{path} holds no backbone: {error}", fix=fix) from error
    if got != expected:
        raise IntegrityError(
            f"{path}: got fingerprint {got[:16]}…, expected {expected[:16]}…: the weights are not"
            " those that all versions were trained on",
            fix=fix,
        )


def _stored(data: mmap.mmap, where: str) -> Iterable[tuple[str, str, tuple[int, ...], bytes]]:
    """Yield the tensors of a safetensors file by name, one in memory at a time."""
    start = 8 + int.from_bytes(data[:8], "little")
    if start > min(len(data), _HEADER_LIMIT):
        raise IntegrityError(f"{where}: it claims a header of {start - 8:,} bytes")
    header = read_object(data[8:start], where)
    header.pop("__metadata__", None)
    entries = read_document(json.dumps(header), dict[str, _Entry], where)
    for name, entry in sorted(entries.items()):
        (dtype, size), (begin, end) = _KINDS[entry.dtype], entry.data_offsets
        if end - begin != size * prod(entry.shape) or start + end > len(data):
            raise IntegrityError(f"{where}: tensor {name!r} lies about its size")
        yield name, f"torch.{dtype}", entry.shape, data[start + begin : start + end]


def parse_arch(arch: str) -> tuple[str, dict[str, Any]]:
    """Split ``name?option=value&…``; values are read as YAML.

    Raises:
        InputError: a value is not YAML, or an option is not one of a network.
    """
    name, _, query = arch.partition("?")
    options = {}
    for key, value in parse_qsl(query):
        if key in _FACTORY:
            raise InputError(f"{name}: {key} is not an option of an architecture")
        try:
            options[key] = read_yaml(value, name)
        except ConfigError as error:
            raise InputError(f"{name}: {key}={value[:40]}: the value is not YAML") from error
    return name, options
