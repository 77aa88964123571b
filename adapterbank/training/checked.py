"""Tensors and a text in one safetensors file, under one checksum.

For what a flipped bit would change without stopping anybody; nothing that is read can run code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from adapterbank.errors import IntegrityError
from adapterbank.reading import read_object


def pack_checked(tensors: Mapping[str, Tensor], text: str) -> bytes:
    """Write tensors, which must be contiguous, and a text as the bytes of one file."""
    plain = dict(tensors)
    return save(plain, {"text": text, "sha256": _checksum(text, plain)})


def unpack_checked(data: bytes) -> tuple[dict[str, Tensor], str]:
    """Read what :func:`pack_checked` wrote.

    Raises:
        IntegrityError: it is no such file, or not what was written.
    """
    try:
        tensors = load(data)  # first: it refuses a header that lies about sizes
        header = read_object(data[8 : 8 + int.from_bytes(data[:8], "little")], "its header")
        text, checksum = header["__metadata__"]["text"], header["__metadata__"]["sha256"]
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise IntegrityError(f"not a file of tensors with a checksum: {error}") from error
    if _checksum(text, tensors) != checksum:
        raise IntegrityError("its content is not what was written")
    return tensors, text


def _checksum(text: str, tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(text.encode() + save(tensors)).hexdigest()
