"""Adding a task to ``pipelines/params.yaml`` as a person would: a few lines, comments kept.

YAML libraries that write lose comments, so the lines are inserted into the text at a place the
parser tells, and the result is parsed again: either it says what it said before and the new task,
or nothing is written.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from adapterbank.config import PARAMS, BankConfig, parse_config
from adapterbank.durable import locked, replace_file, writable
from adapterbank.errors import AdapterBankError, ConfigError, ConflictError, InputError
from adapterbank.records import check_task_name

__all__ = ["add_task", "insert_task"]


def add_task(root: Path, name: str, section: Mapping[str, Any]) -> BankConfig:
    """Write a task's section into a bank's configuration.

    Args:
        root: the bank.
        name: of the new task.
        section: its keys and values, see :class:`~adapterbank.config.TaskConfig`.

    Returns:
        The configuration with the task in it.

    Raises:
        AdapterBankError: the file has a form that cannot be added to by a program.
        ConfigError: the section or the file has problems; all are named.
        ConflictError: there is such a task.
        InputError: not a task's name.
    """
    path = root / PARAMS
    with writable(root), locked(root / "registry" / ".lock"):
        # newline="": a file with Windows line ends keeps them
        with path.open(encoding="utf-8", newline="") as stream:
            text = stream.read()
        changed = insert_task(text, name, section)
        replace_file(path, changed.encode())
    return parse_config(changed, where=str(PARAMS))


def insert_task(text: str, name: str, section: Mapping[str, Any]) -> str:
    r"""Return a configuration's text with one more task, and else unchanged.

    >>> text = "profile: full\nprofiles: {full: {}}\ntasks: {} # none yet\n"
    >>> print(insert_task(text, "pets", {"data": "photos/pets"}), end="")
    profile: full
    profiles: {full: {}}
    tasks: # none yet
      pets:
        data: photos/pets
    """
    check_task_name(name)
    before = parse_config(text, where=str(PARAMS))
    if name in before.tasks:
        raise ConflictError(
            f"Task {name!r} exists already in {PARAMS}",
            fix=f"adapterbank task show {name}, or choose another name",
        )
    changed = _insert(text, name, section)
    # The old parts are known to be right, so what is wrong now is the section or the insertion.
    try:
        after = parse_config(changed, where=str(PARAMS))
    except ConfigError as error:
        about = [line for line in error.problems if line.startswith(f"tasks.{name}")]
        if about:
            raise ConfigError(f"task {name}", about) from error
        raise _by_hand(name, section) from error
    rest = {task: value for task, value in after.tasks.items() if task != name}
    unchanged = after.model_copy(update={"tasks": rest}) == before
    written = yaml.safe_load(changed)["tasks"].get(name)
    if not unchanged or written != section:
        raise _by_hand(name, section)
    return changed


def _insert(text: str, name: str, section: Mapping[str, Any]) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    entries = root.value if isinstance(root, yaml.MappingNode) else []
    found = [value for key, value in entries if key.value == "tasks"]
    if not found:
        gap = "" if text.endswith("\n") else newline
        return f"{text}{gap}{newline}tasks:{newline}{_lines(name, section, 2, newline)}"
    tasks = found[0]
    if isinstance(tasks, yaml.MappingNode) and tasks.value:
        if tasks.flow_style:
            return _insert_flow(text, tasks, name, section)
        at = _line_end(text, _end(tasks))
        indent = tasks.value[0][0].start_mark.column
    else:  # `tasks: {}`
        start, end = tasks.start_mark.index, tasks.end_mark.index
        text = text[:start].rstrip(" ") + text[end:]
        at = _line_end(text, start - 1)
        indent = 2
    gap = "" if text[:at].endswith("\n") else newline
    return f"{text[:at]}{gap}{_lines(name, section, indent, newline)}{text[at:]}"


def _insert_flow(text: str, tasks: yaml.MappingNode, name: str, section: Mapping[str, Any]) -> str:
    """Insert before the brace that closes ``{a: …, b: …}``."""
    close = tasks.end_mark.index - 1
    at = _end(tasks.value[-1][1])
    entry = f"{name}: {_flow(dict(section))}"
    return f"{text[:at]}, {entry}{text[at:close].removeprefix(',')}{text[close:]}"


def _end(node: yaml.Node) -> int:
    """Where the last character of a node is; a block's own mark stands after its comments."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        parts = last if isinstance(last, tuple) else (last,)
        return max(_end(part) for part in parts)
    end: int = node.end_mark.index
    return end


def _line_end(text: str, index: int) -> int:
    """Where the line after the one with ``index`` begins."""
    found = text.find("\n", index)
    return len(text) if found < 0 else found + 1


def _lines(name: str, section: Mapping[str, Any], indent: int, newline: str) -> str:
    body = "".join(f"  {key}: {_flow(value)}\n" for key, value in section.items())
    return textwrap.indent(f"{name}:\n{body}", " " * indent).replace("\n", newline)


def _flow(value: object) -> str:
    """Write a value on one line, letters of every script as they are where YAML allows it."""
    for allow_unicode in (True, False):
        text: str = yaml.safe_dump(
            value,
            default_flow_style=True,
            width=float("inf"),
            sort_keys=False,
            allow_unicode=allow_unicode,
        )
        text = text.removesuffix("...\n").strip()
        if yaml.safe_load(text) == value:
            break
    return text


def _by_hand(name: str, section: Mapping[str, Any]) -> AdapterBankError:
    lines = _lines(name, section, 2, "\n")
    return InputError(
        f"{PARAMS} has a form that a program cannot add to; nothing was written",
        fix=f"add these lines to it under tasks:\n{lines}",
    )
