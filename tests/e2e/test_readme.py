"""What README.md says a user can type."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapterbank import __all__ as public
from adapterbank.cli.app import app

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def documented() -> list[tuple[str, ...]]:
    """Commands in the first column of the table of commands, without their arguments."""
    table = README.partition("## Commands")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)
    commands = [command for cell in cells for command in re.findall(r"`([^`]+)`", cell)]
    return [tuple(re.findall(r"\b[a-z]+\b", command.partition(" -")[0])) for command in commands]


@pytest.mark.parametrize("words", documented(), ids=" ".join)
def test_every_documented_command_exists(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0, result.output
    assert f"adapterbank {' '.join(words)}" in result.output


def test_every_visible_command_is_documented() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    listed = set(re.findall(r"^[│|] ([a-z]+)  ", shown, flags=re.MULTILINE))
    assert listed
    assert listed == {words[0] for words in documented()}


def test_the_python_example_uses_public_names_only() -> None:
    block = README.partition("```python\n")[2].partition("```")[0]
    compile(block, "README.md", "exec")
    imported = re.findall(r"^from adapterbank import (.+)$", block, flags=re.MULTILINE)
    assert imported
    assert {name.strip() for line in imported for name in line.split(",")} <= set(public)


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", README)) <= targets
