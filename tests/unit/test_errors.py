"""Errors form the documented tree, and each says what is wrong and what mends it."""

from __future__ import annotations

import re

import pytest

from adapterbank import errors
from adapterbank.errors import AdapterBankError, ConfigError, ImageError, UnknownName

# name → (depth in the drawn tree, exit code)
DRAWN = {
    match["name"]: (len(match["branch"]) // 4, int(match["code"]))
    for match in re.finditer(
        r"^    (?P<branch>[│├└─ ]*)(?P<name>\w+) +(?P<code>\d) ", str(errors.__doc__), re.MULTILINE
    )
}
CLASSES: dict[str, type[AdapterBankError]] = {name: getattr(errors, name) for name in DRAWN}

each_class = pytest.mark.parametrize("name", DRAWN)


def test_every_error_is_in_the_drawn_tree() -> None:
    kinds = [
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, AdapterBankError)
    ]
    assert sorted(DRAWN) == sorted(kinds)


@each_class
def test_an_error_has_its_documented_exit_code(name: str) -> None:
    assert CLASSES[name].exit_code == DRAWN[name][1]


@each_class
def test_an_error_hangs_where_the_tree_says(name: str) -> None:
    depth = sum(issubclass(kind, AdapterBankError) for kind in CLASSES[name].__mro__) - 1
    assert depth == DRAWN[name][0]


def test_a_fix_stands_on_a_line_of_its_own() -> None:
    error = AdapterBankError("dtd@3 is damaged", fix="adapterbank verify dtd@3")
    assert str(error).splitlines() == ["dtd@3 is damaged", "To mend it: adapterbank verify dtd@3"]
    assert (error.message, error.fix) == ("dtd@3 is damaged", "adapterbank verify dtd@3")


def test_without_a_fix_there_is_only_the_message() -> None:
    assert str(AdapterBankError("dtd@3 is damaged")) == "dtd@3 is damaged"


@pytest.mark.parametrize(
    ("problems", "count"), [(["a: wrong"], "1 problem\n"), (["a: wrong", "b: too"], "2 problems\n")]
)
def test_a_configuration_error_lists_all_its_problems(problems: list[str], count: str) -> None:
    error = ConfigError("params.yaml", problems)
    assert str(error).startswith(f"params.yaml: {count}")
    assert str(error).splitlines()[1:] == [f"  - {problem}" for problem in problems]
    assert error.problems == tuple(problems)


def test_an_image_error_names_the_image() -> None:
    error = ImageError("cat.png", "the file is empty")
    assert (error.path, error.reason, str(error)) == (
        "cat.png", "the file is empty", "cat.png: the file is empty"
    )  # fmt: skip


def test_an_unknown_name_suggests_its_neighbours_and_lists_a_few() -> None:
    error = UnknownName("task", "dtf", ["pets", "dtd"])
    assert str(error) == "Unknown task 'dtf'. Did you mean 'dtd'? Known: dtd, pets."
    assert error.known == ("dtd", "pets")


def test_an_unknown_name_counts_many() -> None:
    error = UnknownName("task", "dtf", ["dtd", *(f"other{i}" for i in range(20))])
    assert str(error) == "Unknown task 'dtf'. Did you mean 'dtd'? 21 known."


def test_an_unknown_name_far_from_all_others_suggests_none() -> None:
    assert "Did you mean" not in str(UnknownName("task", "zebra", ["dtd", "pets"]))


def test_an_unknown_name_among_none_says_so() -> None:
    assert str(UnknownName("task", "dtd")) == "Unknown task 'dtd'. None exist yet."
