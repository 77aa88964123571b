"""What all sections of the report are made of."""

from __future__ import annotations

from collections.abc import Sequence

from adapterbank.cli._html import Html, tag

__all__ = ["facts", "notice", "plain_table", "section"]


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


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[Html | str]]) -> Html:
    """Make a table; the first cell of a row names it.

    Args:
        columns: names; those that start with ``>`` stand to the right, those with ``~`` may fold.
        rows: cells.
    """
    kinds = ["n" if name.startswith(">") else "wrap" if name.startswith("~") else None
             for name in columns]  # fmt: skip
    heads = (
        tag("th", name.lstrip(">~"), scope="col", class_=kind)
        for name, kind in zip(columns, kinds, strict=True)
    )
    body = []
    for first, *others in rows:
        cells = (tag("td", one, class_=kind) for one, kind in zip(others, kinds[1:], strict=True))
        body.append(tag("tr", tag("th", first, scope="row", class_=kinds[0]), *cells))
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *body), class_="plain")
    return tag("div", table, class_="scroll")
