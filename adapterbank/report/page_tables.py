"""What all sections of the report are made of."""

from __future__ import annotations

import re
from collections.abc import Sequence

from adapterbank.report.html import Html, tag

_KINDS = {">": "n", "=": "whole", "~": "wrap"}  # CSS classes of columns


def section(title: str, *content: Html) -> Html:
    """Make a section with its heading."""
    return tag("section", tag("h2", title), *content)


def notice(message: str, fix: str | None = None) -> Html:
    """Say what is missing, and the command that brings it."""
    mend = () if fix is None else (" Next: ", tag("code", fix))
    return tag("p", message, ".", *mend, class_="notice")


def facts(*pairs: tuple[str, Html | str]) -> Html:
    """List names and what they are."""
    entries = (part for name, value in pairs for part in (tag("dt", name), tag("dd", value)))
    return tag("dl", *entries)


def plain_table(
    columns: Sequence[str], rows: Sequence[Sequence[Html | str]], *, wide: bool = False
) -> Html:
    """Make a table; the first cell of a row names it.

    Args:
        columns: names; those that start with ``>`` stand to the right, those with ``=`` are never
            folded, those with ``~`` anywhere.
        rows: cells.
        wide: as wide as the page.
    """
    kinds = [_KINDS.get(name[:1]) for name in columns]
    heads = (
        tag("th", name.lstrip("".join(_KINDS)), scope="col", class_=kind)
        for name, kind in zip(columns, kinds, strict=True)
    )
    body = []
    for first, *others in rows:
        cells = (tag("td", one, class_=kind) for one, kind in zip(others, kinds[1:], strict=True))
        body.append(tag("tr", tag("th", first, scope="row", class_=kinds[0]), *cells))
    table = tag(
        "table",
        tag("thead", tag("tr", *heads)),
        tag("tbody", *body),
        class_="plain wide" if wide else "plain",
    )
    return tag("div", table, class_="scroll")


def moment(time: str) -> str:
    """Write a time as people read it; what is none stays as it is."""
    return re.sub(r"(\d)T(\d\d:.*)Z", r"\1 \2 UTC", time)
