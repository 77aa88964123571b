"""The public names of the package are the ones it says."""

from __future__ import annotations

import pytest

import adapterbank


def test_public_names_are_sorted_and_listed_once() -> None:
    assert list(adapterbank.__all__) == sorted(set(adapterbank.__all__))


@pytest.mark.parametrize("name", adapterbank.__all__)
def test_a_public_name_resolves_to_the_thing_of_that_name(name: str) -> None:
    assert getattr(adapterbank, name).__name__ == name


def test_dir_lists_the_public_names_before_they_are_imported() -> None:
    assert set(adapterbank.__all__) <= set(dir(adapterbank))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = adapterbank.no_such_name
