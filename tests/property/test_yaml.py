"""One text means one thing to DVC and to us, whatever it is."""

from __future__ import annotations

import pytest
from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml, parse_yaml_for_update
from hypothesis import example, given
from hypothesis import strategies as st

from adapterbank.config.yaml import read_yaml
from adapterbank.errors import ConfigError
from tests.source import ROOT

REFUSED = "refused"

# Words where versions of YAML and their readers differ, and pieces of them.
WORDS = st.sampled_from(
    [
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
        "Yes",
        "NO",
        "true",
        "True",
        "TRUE",
        "tRue",
        "false",
        "null",
        "Null",
        "~",
        "2e-3",
        "3.0e-3",
        "1e3",
        "1E+3",
        ".5",
        "1.",
        "-.5",
        "+1",
        "0o7",
        "0o8",
        "0777",
        "08",
        "0x1F",
        "0b11",
        "1_000",
        "1_000.5",
        "12:30",
        "12:30:45",
        "190:20:30.15",
        "2026-01-02",
        "2026-02-30",
        "2026-01-02T03:04:05Z",
        ".inf",
        "-.INF",
        ".nan",
        "=",
        "<<",
    ]
)
PIECES = st.text(alphabet="0123456789abefnostxyEN.+-_:~", min_size=1, max_size=8)
SCALARS = WORDS | PIECES
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(SCALARS, inner), max_size=4).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=12,
)


def ours(text: str) -> object:
    """Read as we do."""
    try:
        return read_yaml(text, "a file") or {}  # as DVC has it
    except ConfigError:
        return REFUSED


def theirs(text: str) -> object:
    """Read as DVC does."""
    try:
        return parse_yaml(text, "a file")
    except (YAMLFileCorruptedError, ValueError, LookupError, AssertionError):
        return REFUSED


@given(DOCUMENTS)
@example("{a: 1, a: 2}")
@example("&x a: *x")
@example("<<: {a: 1}\na: 2")
def test_a_document_means_what_it_means_to_dvc(text: str) -> None:
    # repr: 1, 1.0 and true are equal, and so are dictionaries of another order.
    assert repr(ours(text)) == repr(theirs(text))


@given(st.text(alphabet="ab01:-?[]{},&*!|>'\"%@#\\ \n\t~.=<", max_size=30))
def test_any_text_is_read_or_refused_as_dvc_does(text: str) -> None:
    assert repr(ours(text)) == repr(theirs(text))


@pytest.mark.parametrize("path", ["pipelines/params.yaml", "dvc.yaml"])
def test_the_project_s_own_files_mean_what_dvc_would_update(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert parse_yaml_for_update(text, path) == read_yaml(text, path)
