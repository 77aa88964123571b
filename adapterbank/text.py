"""How things are written for people: numbers, and text of somebody else's that may not be trusted.

A class name, a file name, a reason or an error's words may hold whatever a terminal or a
spreadsheet obeys. What is written for people goes through :func:`visible`, tables for spreadsheets
through :func:`csv_text`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

# Control characters, line breaks, what changes the direction of text or cannot be seen at all, and
# halves of characters; the two joiners belong to the writing of some languages and to emoji.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")


def visible(text: object) -> str:
    r"""Write every character that a terminal would obey, or hide, as its escape: one line of text.

    >>> print(visible("two\nlines \x1b[2J"))
    two\nlines \x1b[2J
    """
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def json_text(content: object, *, ascii_only: bool = False) -> str:
    """Write JSON on one line, in which what :func:`visible` escapes is escaped as JSON does.

    Args:
        content: JSON values, paths and dataclasses; NaN and infinities, which JSON cannot say,
            become null.
        ascii_only: escape all that is not ASCII.
    """
    text = json.dumps(_plain(content), ensure_ascii=ascii_only, allow_nan=False)
    return _HIDDEN.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _plain(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return str(value) if isinstance(value, Path) else value


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Write a table as CSV in which no text is a formula to a spreadsheet.

    >>> print(csv_text([["class", -1], ["=1+1", "-1"]]), end="")
    class,-1
    '=1+1,-1
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([_csv_cell(value) for value in row] for row in rows)
    return stream.getvalue()


def _csv_cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_conflicted(data: bytes) -> bool:
    """Whether Git has left the marks of a merge conflict in a file."""
    return data.startswith(b"<<<<<<< ") or b"\n<<<<<<< " in data


def percent(correct: int | None, total: int | None) -> str:
    """Format a count as a percentage; ``–`` where there is none."""
    return f"{100 * correct / total:.1f} %" if correct is not None and total else "–"


def count(number: int, noun: str) -> str:
    """Format a number of things: ``1 version``, ``3 versions``."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def human_bytes(size_bytes: int | None) -> str:
    """Format a size: ``198 KiB``."""
    if size_bytes is None:
        return "–"
    size, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"


def human_seconds(seconds: float | None) -> str:
    """Format a duration: ``8.1 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def short_digest(digest: str | None) -> str:
    """Shorten a digest to what people compare by eye."""
    return "–" if digest is None else digest[:12]
