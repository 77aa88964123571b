"""JSON files that people read and Git merges: canonical bytes, one entry a line.

The same value always gives the same bytes. Each entry of a top-level list or object stands on a
line of its own, so that a change of one entry is a change of one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

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


def _entries(value: object) -> str:
    if isinstance(value, Mapping) and value:
        lines = ",\n".join(f"    {_line(key)}: {_line(item)}" for key, item in value.items())
        return f"{{\n{lines}\n  }}"
    if isinstance(value, Sequence) and value and not isinstance(value, str):
        lines = ",\n".join(f"    {_line(item)}" for item in value)
        return f"[\n{lines}\n  ]"
    return _line(value)
