"""No text of a bank can become markup of its report."""

from __future__ import annotations

from functools import cache
from xml.etree import ElementTree as ET

from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapterbank.report.page import render_page
from tests.overview_samples import overview

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=http://elsewhere.test/x onerror=alert(1)>',
    "</title></style></svg><b>",
    "' onload='alert(1)",
    "&lt;b&gt; &amp; &#x3c;",
    "]]><!-- <![CDATA[",
    "\x00\x1b[31m\ufffe",
    "\u202eabc",
)
words = st.text(min_size=1, max_size=20) | st.sampled_from(HOSTILE)


def parsed(page: bytes) -> ET.Element:
    """Read a page, strictly."""
    start, _, rest = page.partition(b"\n")
    assert start == b"<!DOCTYPE html>"
    return ET.fromstring(rest)  # noqa: S314  # a page of our own


def shape(page: bytes) -> list[tuple[str, tuple[str, ...]]]:
    """Elements in order, each with the names of its attributes."""
    return [(one.tag, tuple(one.attrib)) for one in parsed(page).iter()]


@cache
def plain_shape() -> list[tuple[str, tuple[str, ...]]]:
    """Of a page of plain words."""
    return shape(render_page(overview(("reds", "greens"), "x")))


@settings(max_examples=10)
@given(task=words, other=words, word=words)
@example(HOSTILE[0], HOSTILE[1], HOSTILE[2])
@example(HOSTILE[3], HOSTILE[4], HOSTILE[5])
@example(HOSTILE[6], HOSTILE[7], HOSTILE[0])
def test_any_words_give_the_elements_that_plain_words_give(
    task: str, other: str, word: str
) -> None:
    tasks = (task, other + "2")
    if tasks[0] == tasks[1] or word in {"outcome", "reason", "p", "task", "listed"}:
        return  # two tasks of one name, or a key of the verdict that is one already
    assert shape(render_page(overview(tasks, word))) == plain_shape()


@settings(max_examples=10)
@given(word=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1))
def test_words_can_be_read_as_they_are(word: str) -> None:
    root = parsed(render_page(overview((word, word + "2"), word)))
    rows = {one.text for one in root.iter("th") if one.get("scope") == "row"}
    assert word in rows
    cells = [one.text for one in root.iter("td")]
    assert word in cells


@settings(max_examples=4)
@given(st.text(max_size=30))
def test_the_same_bank_gives_the_same_bytes(word: str) -> None:
    assert render_page(overview(word=word)) == render_page(overview(word=word))
