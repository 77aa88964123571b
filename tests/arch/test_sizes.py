"""Files and functions stay small enough to be read at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.source import BENCHMARKS, PACKAGE, TESTS, functions, name_of

MODULE_LINES = 400
FUNCTION_LINES = 60


@pytest.mark.parametrize("path", [*PACKAGE, *BENCHMARKS, *TESTS], ids=name_of)
def test_a_module_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES


@pytest.mark.parametrize("path", [*PACKAGE, *BENCHMARKS, *TESTS], ids=name_of)
def test_every_function_is_short(path: Path) -> None:
    lengths = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions(path)}
    assert {name: n for name, n in lengths.items() if n > FUNCTION_LINES} == {}
