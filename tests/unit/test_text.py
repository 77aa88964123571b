"""Text of somebody else's, written so that neither a terminal nor a spreadsheet obeys it."""

from __future__ import annotations

import csv
import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbank.text import csv_text, json_text, visible

ANY_TEXT = st.text(st.characters())  # halves of characters among them
OBEYED = st.text(
    st.sampled_from("\x00\x07\x08\t\n\r\x1b\x7f\x85\x90\x9b\x9d\u2028\u202e\u2066\udcffa=")
)


def hidden(text: str) -> set[str]:
    """Characters that a terminal obeys, or that turn or hide what stands around them."""
    return {
        character
        for character in text
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(character)
        in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    }


@given(ANY_TEXT | OBEYED)
def test_nothing_that_is_visible_is_obeyed_by_a_terminal(text: str) -> None:
    shown = visible(text)
    assert shown.splitlines() == ([shown] if shown else [])
    assert not hidden(shown)
    assert visible(shown) == shown


@pytest.mark.parametrize("text", ["größer", "猫", "صورة", "👨‍👩‍👧", "a b", "C:\\x1b", "naïve ½"])
def test_text_that_anybody_can_read_is_left_as_it_is(text: str) -> None:
    assert visible(text) == text


@given(ANY_TEXT | OBEYED)
def test_json_means_the_same_with_what_is_hidden_escaped(text: str) -> None:
    shown = json_text([text])
    assert json.loads(shown) == [text]
    assert visible(shown) == shown


@pytest.mark.parametrize("start", ["=", "+", "-", "@", " =", "\uff1d", "=\t"])
def test_a_cell_that_a_spreadsheet_would_compute_is_text(start: str) -> None:
    (cell,) = next(csv.reader(io.StringIO(csv_text([[f"{start}cmd()"]]))))
    assert cell == f"'{visible(start)}cmd()"


@pytest.mark.parametrize("value", [-1, 0.5, "-0.25", "+1e3", "-inf", "cat", ""])
def test_a_cell_that_is_a_number_or_a_word_is_left_as_it_is(value: object) -> None:
    assert next(csv.reader(io.StringIO(csv_text([["x", value]])))) == ["x", str(value)]
