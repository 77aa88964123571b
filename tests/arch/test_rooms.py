"""The package is a house of rooms by subject, none of which takes over."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.source import PACKAGE, ROOT, name_of, parsed

HOUSE = ROOT / "adapterbank"
LARGEST = 0.12
"""Of the package's lines, in one room."""


def room_of(path: Path) -> str:
    """Name the sub-package a module is in; a module at the top is a room of its own."""
    return path.relative_to(HOUSE).parts[0]


def count_lines() -> Counter[str]:
    """Count the lines of each room."""
    lines = Counter[str]()
    for path in PACKAGE:
        lines[room_of(path)] += len(path.read_text(encoding="utf-8").splitlines())
    return lines


@pytest.mark.parametrize("room", sorted({room_of(path) for path in PACKAGE}))
def test_no_room_holds_more_than_12_percent_of_the_lines(room: str) -> None:
    lines = count_lines()
    assert lines[room] <= LARGEST * lines.total()


def test_every_command_is_in_a_module_with_a_name_of_its_own() -> None:
    names = [path.name for path in PACKAGE if room_of(path) == "cli"]
    assert [name for name in names if name.startswith("_") and name != "__init__.py"] == []


@pytest.mark.parametrize(
    "path", [path for path in PACKAGE if path.name != "__init__.py"], ids=name_of
)
def test_only_a_package_says_what_is_public(path: Path) -> None:
    assigned = {
        target.id
        for node in parsed(path).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    assert "__all__" not in assigned
