"""What a task does not use of the files it was pointed at: by reason and number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from adapterbank.text import count

_EXAMPLES = 3  # names kept of each reason
_SHOWN = 8  # reasons on the screen; prepared.json has all


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Files that are not used for one reason."""

    reason: str  # as in "3 files: REASON"
    count: int
    examples: tuple[str, ...]  # a few of their names, within the folder


class Tally:
    """Counts files that are left out."""

    def __init__(self, known: Iterable[LeftOut] = ()) -> None:
        self._found = {one.reason: (one.count, one.examples) for one in known}

    def add(self, reason: str, name: str, number: int = 1) -> None:
        """Count a file, or so many within a folder of that name."""
        if number == 0:
            return
        counted, examples = self._found.get(reason, (0, ()))
        self._found[reason] = (counted + number, (*examples, name)[:_EXAMPLES])

    def result(self) -> tuple[LeftOut, ...]:
        """What was counted, in a fixed order."""
        return tuple(
            LeftOut(reason=reason, count=number, examples=examples)
            for reason, (number, examples) in sorted(self._found.items())
        )


def sentences(left_out: Iterable[LeftOut]) -> list[str]:
    """Say what is not used, a line for each reason.

    >>> sentences([LeftOut(reason="hidden", count=1, examples=("cat/.thumb.png",))])
    ['Left out: 1 file: hidden (cat/.thumb.png)']
    """
    lines = []
    for one in sorted(left_out, key=lambda one: -one.count):
        more = ", …" if one.count > len(one.examples) else ""
        named = ", ".join(one.examples)
        lines.append(f"Left out: {count(one.count, 'file')}: {one.reason} ({named}{more})")
    rest = len(lines) - _SHOWN
    return lines[:_SHOWN] + ([f"Left out for {count(rest, 'other reason')}"] if rest > 0 else [])
