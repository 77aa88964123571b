"""YAML is read as version 1.2, and what is wrong with it is said in one line, with its place."""

from __future__ import annotations

import pytest

from adapterbank.config.yaml import read_mapping, read_texts, read_yaml
from adapterbank.errors import ConfigError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefg", "bcdefgh", strict=True)
)
CHAIN = "a0: &a0 [[[[[x]]]]]\n" + "".join(
    f"a{i}: &a{i} [[[[[*a{i - 1}]]]]]\n" for i in range(1, 20)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[yes, no, on, off, y, n]", ["yes", "no", "on", "off", "y", "n"]),
        ("[true, False, TRUE]", [True, False, True]),
        ("[2e-3, 3.0e-3, 1e3, 1.5]", [0.002, 0.003, 1000.0, 1.5]),
        ("[0o7, 0777, 0x1f]", [7, 777, 31]),
        ("[12:30, 12:30:45]", ["12:30", "12:30:45"]),
        ("[null, ~, '']", [None, None, ""]),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("a: &x 1\nb: &x 2\nc: *x", {"a": 1, "b": 2, "c": 2}),
        ("", None),
    ],
)
def test_a_document_is_read_as_yaml_1_2(text: str, value: object) -> None:
    read = read_yaml(text, "a file")
    assert repr(read) == repr(value)


@pytest.mark.parametrize(
    ("text", "line", "column", "problem"),
    [
        ("a: 1\nb: 2\na: 3", 3, 1, "the key 'a' stands here twice"),
        ("a:\n  day: 2026-02-30", 2, 8, "'2026-02-30' is no timestamp: day is out of range"),
        ("a: !!int x", 1, 4, "'x' is no int"),
        ("a: !!bool x", 1, 4, "'x' is no bool"),
        ("a: " + "9" * 5000, 1, 4, "is no int"),
        ("a: " + "9" * 21, 1, 4, "has more than 20 digits"),
        ("a: 'x", 1, 6, "while scanning a quoted scalar, found unexpected end of stream"),
        ("a: !!python/name:os.system", 1, 4, "could not determine a constructor"),
        ("? {a: 1}\n: 2", 1, 3, "found unhashable key"),
        ("a: 1\nb: *c", 2, 4, "found undefined alias 'c'"),
        ("a: 1\n---\nb: 2", 2, 1, "expected a single document"),
        ("é: 1\nb: \x07", 2, 4, "the character U+0007 is not allowed"),
        ("a: &a [*a]", 1, 8, "the alias 'a' stands within what it means"),
        ("[" * 10_000, 1, 51, "nested more than 50 deep"),
        ("- " * 10_000, 1, 101, "nested more than 50 deep"),
        (CHAIN, 10, 14, "nested more than 50 deep"),
        (BOMB, 6, 16, "more than 250,000 keys and values"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_what_cannot_be_read_is_refused_in_one_line_with_its_place(
    text: str, line: int, column: int, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "a file")
    (said,) = caught.value.problems
    assert said.startswith(f"not YAML: line {line}, column {column}: ")
    assert problem in said
    assert "\n" not in said


def test_a_document_of_many_megabytes_is_not_even_parsed() -> None:
    with pytest.raises(ConfigError, match="at most 4,000,000"):
        read_yaml("#" * 4_000_001, "a file")


def test_a_key_twice_in_an_ordered_mapping_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice in an !!omap"):
        read_yaml("!!omap [a: 1, a: 2]", "a file")


@pytest.mark.parametrize("text", ["", "[a]", "a"])
def test_the_top_of_a_file_must_be_a_mapping(text: str) -> None:
    with pytest.raises(ConfigError, match="a file: 1 problem\n  - expected a mapping at the top"):
        read_mapping(text, "a file")


def test_what_a_program_wrote_is_read_as_texts() -> None:
    text = b"outs:\n- path: 1e5\n  day: 2026-02-30\n  size: 12\n  none: ~\n"
    read = {"outs": [{"path": "1e5", "day": "2026-02-30", "size": "12", "none": "~"}]}
    assert read_texts(text, "a file") == read
    assert read_texts(b"", "a file") is None


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b"- " * 100_000,
        b"a: 'x",
        b"\xff\xfe\xfa",
        b"a: \x07",
        b"*x",
        b"a: &a [*a]\nb",
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_no_program_wrote_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ConfigError, match="not YAML") as caught:
        read_texts(data, "a file")
    assert "\n" not in caught.value.problems[0]
