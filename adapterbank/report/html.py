"""HTML from trees of elements: whatever is put into one is text, unless it is markup already.

There is no other way from a string to markup than :func:`tag`, so no name, reason or label can
become an element. What is written is also well-formed XML, which tests read it as.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

# Neither HTML nor XML has these characters, not even escaped.
_ILLEGAL = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010fffd]"
)
_EMPTY = frozenset({"br", "circle", "col", "line", "link", "meta", "path", "polyline", "rect"})


@dataclass(frozen=True)
class Html:
    """Markup; only this module makes it."""

    text: str


def tag(element: str, /, *children: Html | str, **attributes: str | float | None) -> Html:
    """Make an element.

    Args:
        element: its name.
        children: strings are text.
        attributes: by name, where ``class_`` means ``class`` and ``stroke_width``
            ``stroke-width``; None leaves one out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if element in _EMPTY and not children:
        return Html(f"<{element}{given}/>")
    return Html(f"<{element}{given}>{join(*children).text}</{element}>")


def join(*children: Html | str) -> Html:
    """Put pieces one after the other."""
    return Html("".join(
        child.text if isinstance(child, Html) else _escape(child) for child in children
    ))  # fmt: skip


def style(sheet: str) -> Html:
    """Make a style sheet of our own, which is no text to be escaped.

    Raises:
        ValueError: it holds what would end it, or what XML cannot hold.
    """
    if "<" in sheet or "&" in sheet:
        raise ValueError("a style sheet has no '<' and no '&'")
    return Html(f"<style>\n{sheet}</style>")


def _escape(text: str) -> str:
    return html.escape(_ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text))
