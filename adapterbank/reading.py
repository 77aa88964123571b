"""Reading bytes that anybody may have written: JSON and tensors, within limits.

Whatever is wrong with them is one error that names the file: size, depth, numbers that are none,
keys that stand twice, fields that are missing or of another type, tensors of another kind.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load

from adapterbank.errors import IntegrityError
from adapterbank.text import count

T = TypeVar("T")
Tensors = dict[str, np.ndarray]

_LONGEST = 1 << 26  # bytes of JSON
_DEEPEST = 50  # objects and lists in one another, as in YAML
_COLLECTIONS = 500_000  # objects and lists; a million empty ones, 3 MB, take 1.4 GB
_VALUES = 3_000_000
_DIGITS = 20  # of a whole number: those of 64 bits
_MOST_PROBLEMS = 1000  # that are worth a look; a million of them take seconds to be listed
# An adapter has a few dozen tensors of 100 bytes each in the header. The format allows 100 MB,
# which take half a minute and 2 GB to parse.
_HEADER_LIMIT = 1 << 20


def read_json(data: bytes | str, where: str, *, fix: str | None = None) -> Any:  # noqa: ANN401
    """Read one JSON value, which messages call ``where``.

    Raises:
        IntegrityError: it is not JSON as its standard has it, or beyond what any file here needs:
            64 MiB, 50 levels, 500,000 objects and lists, 20 digits of a whole number.
    """
    if len(data) > _LONGEST:
        message = f"{where} is not JSON that is read: {len(data):,} bytes, at most {_LONGEST:,}"
        raise IntegrityError(message, fix=fix)
    try:
        text = data if isinstance(data, str) else data.decode()
        _refuse_many(text)
        content = _DECODER.decode(text)
        if "\\u" in text:
            _ENCODER.encode(content).encode()  # halves of characters, which no file can hold
        _refuse_depth(content)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{where} is not JSON: {error}", fix=fix) from error
    return content


def read_object(data: bytes | str, where: str, *, fix: str | None = None) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        IntegrityError: see :func:`read_json`; or it is no object.
    """
    content = read_json(data, where, fix=fix)
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise IntegrityError(f"{where} holds a {kind}, expected an object", fix=fix)
    return content


def read_document(data: bytes | str, shape: type[T], where: str, *, fix: str | None = None) -> T:
    """Read JSON into ``shape``, a pydantic dataclass or whatever pydantic can check.

    A document with a ``schema`` this program does not know is refused by that name alone:
    whatever else looks wrong in it may be right in a later release.

    Raises:
        IntegrityError: see :func:`read_json`; or an unknown schema, or fields that do not fit, all
            of them named.
    """
    content = read_json(data, where, fix=fix)
    stated = content.get("schema") if isinstance(content, dict) else None
    del content  # of large documents there is one copy in memory at a time
    try:
        document: T = _adapter(shape).validate_json(data)  # type: ignore[arg-type]  # it hashes
    except ValidationError as error:
        if error.error_count() > _MOST_PROBLEMS:
            problems = count(error.error_count(), "problem")
            raise IntegrityError(f"{where} is not valid: it has {problems}", fix=fix) from None
        raise _misfit(error, stated, where, fix) from error
    return document


def read_tensors(data: bytes, where: str, *, fix: str | None = None) -> Tensors:
    """Read a safetensors file whose every number is finite.

    Raises:
        IntegrityError: the header lies about names, shapes or sizes, a kind of number is not one
            numpy has, or a value is NaN or infinite; names the tensor.
    """
    header = int.from_bytes(data[:8], "little")
    if header > _HEADER_LIMIT:
        raise IntegrityError(
            f"{where} is not a usable safetensors file: it claims a header of {header:,} bytes,"
            f" more than the {_HEADER_LIMIT:,} allowed",
            fix=fix,
        )
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        # KeyError: numbers numpy has no name for, bfloat16 and the 8-bit floats.
        message = f"{where} is not a usable safetensors file: {error}"
        raise IntegrityError(message, fix=fix) from error
    for name, tensor in sorted(tensors.items()):
        if tensor.dtype.kind in "fc" and not np.isfinite(tensor).all():
            values = int(tensor.size - np.isfinite(tensor).sum())
            message = f"{where}: tensor {name!r} holds {values:,} NaN or infinite values"
            raise IntegrityError(message, fix=fix)
    return tensors


def _pairs(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key in counts if counts[key] > 1)
        raise ValueError(f"the key {twice[:40]!r} stands twice in one object")
    return content


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > _DIGITS:
        raise ValueError(f"a whole number of {len(text):,} digits, at most {_DIGITS}")
    return int(text)


def _fraction(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a number JSON has")
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_whole, parse_float=_fraction, parse_constant=_fraction
)
_ENCODER = json.JSONEncoder(ensure_ascii=False)


def _refuse_many(text: str) -> None:
    """Refuse what is too much to be held in memory; marks within strings count too."""
    if text.count("{") + text.count("[") > _COLLECTIONS or text.count(",") > _VALUES:
        raise ValueError(f"more than {_COLLECTIONS:,} objects and lists, or {_VALUES:,} values")


def _refuse_depth(content: object) -> None:
    level = [content]
    for _ in range(_DEEPEST + 1):
        if not level:
            return
        level = [
            part
            for value in level
            if isinstance(value, (dict, list))
            for part in (value.values() if isinstance(value, dict) else value)
        ]
    raise ValueError(f"nested more than {_DEEPEST} deep")


def _misfit(error: ValidationError, stated: object, where: str, fix: str | None) -> IntegrityError:
    """Name what does not fit into a shape: at first the schema, else the first few fields."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    if any(problem["loc"] == ("schema",) and problem["type"] == "literal_error"
           for problem in problems):  # fmt: skip
        return IntegrityError(
            f"{where} has schema {stated!r}, which this release cannot read",
            fix="upgrade adapterbank to the release that wrote it",
        )
    listed = "; ".join(f"{_place(p['loc'])}{p['msg']}" for p in problems[:5])
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    return IntegrityError(f"{where} is not valid: {listed}{more}", fix=fix)


@cache
def _adapter(shape: type[T]) -> TypeAdapter[T]:
    """Keep what is slower to make than most documents are to read."""
    return TypeAdapter(shape)


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) + ": " if location else ""
