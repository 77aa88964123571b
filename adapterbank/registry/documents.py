"""JSON files that people read and Git merges: canonical bytes, one entry a line.

The same value always gives the same bytes. Each entry of a top-level list or object stands on a
line of its own, so that a change of one entry is a change of one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from adapterbank.errors import IntegrityError

T = TypeVar("T")
_MOST_PROBLEMS = 1000  # that are worth a look; a million of them take seconds to be listed
# json.dumps makes an encoder each time
_line = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def dump_document(document: Mapping[str, Any]) -> bytes:
    """Write a document in the order its keys have, as UTF-8 with a trailing newline.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot say.

    >>> print(dump_document({"schema": 1, "aliases": {"champion": 2}}).decode(), end="")
    {
      "schema": 1,
      "aliases": {
        "champion": 2
      }
    }
    """
    lines = ",\n".join(f"  {_line(key)}: {_entries(value)}" for key, value in document.items())
    return f"{{\n{lines}\n}}\n".encode()


def parse_document(data: bytes, shape: type[T], *, where: str, fix: str | None = None) -> T:
    """Read a document into the pydantic dataclass ``shape``.

    A document with a ``schema`` this program does not know is refused by that name alone:
    whatever else looks wrong in it may be right in a later release.

    Raises:
        IntegrityError: not JSON, an unknown schema, or fields that do not fit, all of them named.
    """
    try:
        document: T = _adapter(shape).validate_json(data)  # type: ignore[arg-type]  # it hashes
    except ValidationError as error:
        if error.error_count() > _MOST_PROBLEMS:
            raise IntegrityError(
                f"{where} is not valid: it has {error.error_count():,} problems", fix=fix
            ) from None
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        schema = next((p for p in problems if p["loc"] == ("schema",)), None)
        if schema is not None and schema["type"] == "literal_error":
            content = json.loads(data)
            stated = content.get("schema") if isinstance(content, dict) else None
            raise IntegrityError(
                f"{where} has schema {stated!r}, which this release cannot read",
                fix="upgrade adapterbank to the release that wrote it",
            ) from error
        listed = "; ".join(f"{_place(p['loc'])}{p['msg']}" for p in problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise IntegrityError(f"{where} is not valid: {listed}{more}", fix=fix) from error
    return document


@cache
def _adapter(shape: type[T]) -> TypeAdapter[T]:
    """Keep what is slower to make than most documents are to read."""
    return TypeAdapter(shape)


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) + ": " if location else ""


def _entries(value: object) -> str:
    if isinstance(value, Mapping) and value:
        lines = ",\n".join(f"    {_line(key)}: {_line(item)}" for key, item in value.items())
        return f"{{\n{lines}\n  }}"
    if isinstance(value, Sequence) and value and not isinstance(value, str):
        lines = ",\n".join(f"    {_line(item)}" for item in value)
        return f"[\n{lines}\n  ]"
    return _line(value)
