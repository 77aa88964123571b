"""References and names: what is written is read back, and nothing else is taken for one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbank.errors import InputError
from adapterbank.records import Reference, Score, Traits, check_task_name

TASKS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True)
ALIASES = st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True)
DIGESTS = st.text("0123456789abcdef", min_size=4, max_size=64)
REFERENCES = st.one_of(
    st.builds(Reference, task=TASKS, alias=ALIASES),
    st.builds(Reference, task=TASKS, version=st.integers(0, 10**9 - 1)),
    st.builds(Reference, task=TASKS, digest=DIGESTS),
)


@given(reference=REFERENCES)
def test_a_written_reference_is_read_back_as_it_was(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference


@given(text=st.one_of(REFERENCES.map(str), st.text("ad0@:-_ \nsh256", max_size=20)))
def test_a_reference_has_exactly_one_meaning_or_is_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InputError:
        return
    meanings = (reference.alias, reference.version, reference.digest)
    assert sum(meaning is not None for meaning in meanings) == 1
    assert Reference.parse(str(reference)) == reference


@given(task=TASKS)
def test_a_bare_name_means_the_champion(task: str) -> None:
    assert Reference.parse(task) == Reference(task=task, alias="champion")


def test_white_space_around_a_reference_means_nothing() -> None:
    assert Reference.parse(" dtd@3\n") == Reference(task="dtd", version=3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "dtd@",
        "@3",
        "dtd@@3",
        "dtd@3@4",
        "dtd@-1",
        "dtd@1.5",
        "dtd@1234567890",  # no bank has so many; and no number grows without bound
        "dtd@Champion",
        "dtd@3rd",
        "dtd@sha256:",
        "dtd@sha256:abc",
        "dtd@sha256:ABCD",
        "dtd@sha256:xyzw",
        f"dtd@sha256:{'a' * 65}",
        "dtd@md5:abcd",
        "dtd @3",
        "dtd@ 3",
        "../dtd",
        "a/b@3",
        "dtd@٣",  # a digit, but not one of ours
    ],
)
def test_anything_else_is_no_reference(text: str) -> None:
    with pytest.raises(InputError):
        Reference.parse(text)


@given(name=TASKS)
def test_a_legal_task_name_is_returned_as_it_is(name: str) -> None:
    assert check_task_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "DTD",
        "-dtd",
        "_dtd",
        "d td",
        "d/td",
        "..",
        ".dtd",
        "dtd\n",
        "dtd@1",
        "a" * 65,
        "ö",
        "a:b",
    ],
)
def test_a_name_that_could_not_be_a_folder_everywhere_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="not a task name") as caught:
        check_task_name(name)
    assert repr(name) in str(caught.value)


def test_accuracy_is_a_fraction_and_of_nothing_not_a_number() -> None:
    assert Score(correct=3, total=4).accuracy == 0.75
    assert math.isnan(Score(correct=0, total=0).accuracy)


def test_patches_are_those_of_the_grid() -> None:
    traits = Traits(
        width=8, blocks=2, patch=(16, 16), grid=(3, 5), prefix_tokens=1, pool="token", parameters=9
    )
    assert traits.patches == 15
