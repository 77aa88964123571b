"""What errors advise exists: every command of ours that mends something, with its options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
import typer

from adapterbank.cli.app import app
from tests.source import PACKAGE, name_of, parsed

ADVISING = {"fix", "mend", "fetch", "adopt"}
"""Arguments that have the command that mends something."""
_COMMAND = re.compile(r"(?<!upgrade )\badapterbank ((?:[\w@./:{}-]+ ?)+)")
_NO_CHECKOUT = re.compile(r"git checkout (?:-- |(?!HEAD|--|-q)\S+\.lock)")


def spelled(node: ast.AST) -> str:
    """Return a text in the source, with ``X`` for what is put into it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"\{\w*\}", "X", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(spelled(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return "X"
    if isinstance(node, ast.IfExp):
        return f"{spelled(node.body)}; {spelled(node.orelse)}"
    if isinstance(node, ast.BinOp):
        return spelled(node.left) + spelled(node.right)
    return ""


def advice() -> Iterator[tuple[str, str]]:
    for path in PACKAGE:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.keyword) and node.arg in ADVISING and spelled(node.value):
                yield name_of(path), spelled(node.value)


FOUND = sorted(set(advice()))
COMMANDS = [(where, match[1]) for where, text in FOUND for match in _COMMAND.finditer(text)]


def test_the_advice_of_the_package_is_found() -> None:
    assert len(FOUND) > 80
    assert len(COMMANDS) > 40


@pytest.mark.parametrize(("where", "command"), COMMANDS, ids=" ".join)
def test_a_command_that_is_advised_exists_and_takes_what_is_advised(
    where: str, command: str
) -> None:
    assert where
    found, words = typer.main.get_command(app), command.split()
    while words and hasattr(found, "commands"):
        assert words[0] in found.commands, f"there is no command {words[0]!r}"
        found = found.commands[words.pop(0)]
    options = {name for param in found.params for name in (*param.opts, *param.secondary_opts)}
    assert [word for word in words if word.startswith("--") and word not in options] == []


@pytest.mark.parametrize(("where", "text"), FOUND, ids=lambda value: str(value)[:60])
def test_no_advice_is_refused_in_the_middle_of_a_merge(where: str, text: str) -> None:
    """Git refuses to check a file out of the index while it is unmerged."""
    assert where
    assert not _NO_CHECKOUT.search(text)
