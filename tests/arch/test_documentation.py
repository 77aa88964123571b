"""Everything public is documented and annotated."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.source import BENCHMARKS, PACKAGE, Function, functions, name_of, parsed, public

each_module = pytest.mark.parametrize("path", [*PACKAGE, *BENCHMARKS], ids=name_of)


@each_module
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(parsed(path))


@each_module
def test_everything_public_has_a_docstring(path: Path) -> None:
    missing = [name for name, node in public(parsed(path).body) if not ast.get_docstring(node)]
    assert missing == []


@each_module
def test_every_function_is_annotated_in_full(path: Path) -> None:
    assert [f"line {f.lineno}: {f.name}" for f in functions(path) if not annotated(f)] == []


def annotated(function: Function) -> bool:
    given = function.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    arguments += [extra for extra in (given.vararg, given.kwarg) if extra is not None]
    bare = [a.arg for a in arguments if a.annotation is None and a.arg not in {"self", "cls"}]
    return not bare and function.returns is not None
