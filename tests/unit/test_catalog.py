"""Any package is a catalogue of its public modules; `tests/arch` checks ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbank import catalog
from adapterbank.errors import UnknownName


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of an importable package, another one for each test."""
    package = f"shelf_of_{abs(hash(tmp_path))}"
    folder = tmp_path / package
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    return package


def _put(shelf: str, tmp_path: Path, **modules: str) -> None:
    for name, text in modules.items():
        (tmp_path / shelf / f"{name}.py").write_text(text)


def test_entries_are_the_public_modules_sorted(shelf: str, tmp_path: Path) -> None:
    _put(shelf, tmp_path, zebra="", ape="", base="", _private="")
    (tmp_path / shelf / "notes.txt").write_text("no module")
    assert catalog.names(shelf) == ("ape", "zebra")


def test_listing_imports_no_entry(shelf: str, tmp_path: Path) -> None:
    _put(shelf, tmp_path, broken="raise RuntimeError('imported')")
    assert catalog.names(shelf) == ("broken",)


def test_an_entry_is_its_module(shelf: str, tmp_path: Path) -> None:
    _put(shelf, tmp_path, vpt_deep="COLOUR = 'red'")
    assert catalog.load(shelf, "vpt_deep", kind="method").COLOUR == "red"


def test_an_entry_has_one_name(shelf: str, tmp_path: Path) -> None:
    """A second spelling would be a second file in dvc.yaml and a second digest."""
    _put(shelf, tmp_path, vpt_deep="")
    with pytest.raises(UnknownName, match="Did you mean 'vpt_deep'"):
        catalog.load(shelf, "vpt-deep", kind="method")


@pytest.mark.parametrize("name", ["base", "_private", "os", "..ape", "ape.inner", "", "Ape"])
def test_what_is_no_entry_is_never_imported(shelf: str, tmp_path: Path, name: str) -> None:
    _put(shelf, tmp_path, ape="", base="", _private="")
    with pytest.raises(UnknownName) as caught:
        catalog.load(shelf, name, kind="method")
    assert (caught.value.kind, caught.value.known) == ("method", ("ape",))


def test_an_error_inside_an_entry_is_not_an_unknown_name(shelf: str, tmp_path: Path) -> None:
    _put(shelf, tmp_path, ape="import a_library_nobody_has")
    with pytest.raises(ModuleNotFoundError, match="a_library_nobody_has"):
        catalog.load(shelf, "ape", kind="method")
