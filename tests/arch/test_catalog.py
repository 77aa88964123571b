"""A method or a task is in its catalogue because its file is there."""

from __future__ import annotations

import pytest

from adapterbank import catalog
from adapterbank.errors import UnknownName
from tests.source import BENCHMARKS, PACKAGE, ROOT

CATALOGUES = {"adapterbank.methods": ("Config", "build"),
              "adapterbank.data.tasks": ("CLASSES", "DESCRIPTION", "build"),
              "benchmarks.routers": ("NEEDS", "build")}  # fmt: skip

each_catalogue = pytest.mark.parametrize("package", CATALOGUES)


@each_catalogue
def test_a_catalogue_lists_every_file(package: str) -> None:
    folder = ROOT.joinpath(*package.split("."))
    files = [path.stem for path in (*PACKAGE, *BENCHMARKS) if path.parent == folder]
    assert catalog.names(package) == tuple(
        sorted(name for name in files if not name.startswith("_") and name != "base")
    )


@pytest.mark.parametrize(
    ("package", "name"),
    [(package, name) for package in CATALOGUES for name in catalog.names(package)],
)
def test_an_entry_has_what_its_catalogue_promises(package: str, name: str) -> None:
    module = catalog.load(package, name, kind="entry")
    assert [part for part in CATALOGUES[package] if not hasattr(module, part)] == []


@each_catalogue
def test_an_unknown_entry_lists_its_neighbours(package: str) -> None:
    known = catalog.names(package)[0]
    with pytest.raises(UnknownName, match=known):
        catalog.load(package, known + "x", kind="entry")
