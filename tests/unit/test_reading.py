"""JSON that anybody may have written: what is read means one thing, all else is one error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbank.errors import IntegrityError
from adapterbank.reading import read_document, read_json, read_object

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_whatever_json_says_is_read_as_it_is_meant(value: object) -> None:
    assert read_json(json.dumps(value), "it") == value
    assert read_json(json.dumps(value, ensure_ascii=False).encode(), "it") == value


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:0123456789.eE+-\\untrafls', max_size=60))
def test_bytes_that_are_anything_are_read_or_one_error(data: bytes | str) -> None:
    try:
        read_document(data, dict[str, int], "it")
    except IntegrityError as error:
        assert error.message.startswith("it ")  # noqa: PT017  # most of it is none


REFUSED = {
    "nan": "NaN",
    "infinity": "[-Infinity]",
    "too-large": "1e999",
    "digits": "9" * 21,
    "more-digits": "9" * 5000,
    "deep": "[" * 51 + "]" * 51,
    "deeper": "[" * 100_000,
    "deep-object": '{"a":' * 60 + "1" + "}" * 60,
    "twice": '{"a": 1, "a": 2}',
    "collections": f"[{'[],' * 500_000}[]]",
    "objects": f"[{'{},' * 500_000}[]]",
    "values": f"[{'1,' * 3_000_001}1]",
    "half-a-character": '"\\ud800"',
    "half-a-key": '{"\\udc00": 1}',
    "not-utf8": b'"\xff"',
    "mark": "\ufeff1",
    "utf16": "1".encode("utf-16"),
    "nothing": "",
    "two": "1 2",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_no_file_here_needs_is_refused(data: bytes | str) -> None:
    with pytest.raises(IntegrityError, match=r"^it is not JSON: ") as caught:
        read_json(data, "it", fix="mend")
    assert caught.value.fix == "mend"
    assert len(caught.value.message) < 300


def test_the_key_that_stands_twice_is_found_among_very_many() -> None:
    keys = ", ".join(f'"{number}": 1' for number in range(100_000))
    with pytest.raises(IntegrityError, match="the key '99999' stands twice"):
        read_json(f'{{{keys}, "99999": 2}}', "it")  # a look at each pair of keys takes minutes


def test_what_is_too_long_is_not_even_looked_at() -> None:
    with pytest.raises(IntegrityError, match="67,108,866 bytes"):
        read_json(b'"' + b"a" * (1 << 26) + b'"', "it")


def test_an_object_is_expected_where_one_is() -> None:
    with pytest.raises(IntegrityError, match="it holds a list, expected an object"):
        read_object("[]", "it")
