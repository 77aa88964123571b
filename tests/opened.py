"""Which alias files are opened while a test watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WATCHED: list[list[str]] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    """Keep the paths that are opened while somebody watches; such a hook stays for good."""
    if _WATCHED and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _WATCHED[-1].append(os.fsdecode(arguments[0]))


sys.addaudithook(_note)


@contextmanager
def opened_records() -> Iterator[list[str]]:
    """Collect the alias files that are opened in the block, the router's included."""
    records: list[str] = []
    _WATCHED.append([])
    try:
        yield records
    finally:
        paths = map(Path, _WATCHED.pop())
        records += [p.name for p in paths if p.parent.name == "aliases" or p.name == "router.json"]
