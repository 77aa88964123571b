"""Adding a task to ``pipelines/params.yaml``, replacing and removing one, as a person would.

YAML libraries that write lose comments, so a few lines are put into the text, or taken out of it,
at a place the parser tells, and the result is parsed again: either it says what it said before with
that one task more, less or other, or nothing is written.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from adapterbank.config.bank import PARAMS, BankConfig, parse_config
from adapterbank.durable import locked, replace_file, writable
from adapterbank.errors import AdapterBankError, ConfigError, ConflictError, InputError
from adapterbank.records import check_new_task


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
    return _edit(root, lambda text: insert_task(text, name, section))


def remove_task(root: Path, name: str) -> BankConfig:
    """Take a task's section out of a bank's configuration.

    Args:
        root: the bank.
        name: of the task.

    Returns:
        The configuration without it; as it is where there is no such task.

    Raises:
        AdapterBankError: the disk is full or read-only.
        ConfigError: the file has problems; all are named.
        InputError: the file has a form that a program cannot take a task out of.
    """
    return _edit(root, lambda text: delete_task(text, name))


def replace_task(root: Path, name: str, section: Mapping[str, Any]) -> BankConfig:
    """Put another section in the place of a task's, which keeps its place in the order.

    Args:
        root: the bank.
        name: of a task that is in it.
        section: its new keys and values.

    Returns:
        The configuration with the task as it is now.

    Raises:
        AdapterBankError: the disk is full or read-only.
        ConfigError: the section or the file has problems; all are named.
        InputError: the file has a form that a program cannot change so.
        UnknownName: no such task.
    """
    return _edit(root, lambda text: exchange_task(text, name, section))


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
    check_new_task(name)
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


def exchange_task(text: str, name: str, section: Mapping[str, Any]) -> str:
    r"""Return a configuration's text with another section of one task, and else unchanged.

    >>> text = "profile: full\nprofiles: {full: {}}\ntasks:\n  pets: {data: photos} # mine\n"
    >>> print(exchange_task(text, "pets", {"data": "photos/new"}), end="")
    profile: full
    profiles: {full: {}}
    tasks:
      pets: {data: photos/new} # mine
    """
    before = parse_config(text, where=str(PARAMS))
    before.task(name)  # there is one
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    entries = root.value if isinstance(root, yaml.MappingNode) else []
    tasks = next(value for key, value in entries if key.value == "tasks")
    key, old = next(pair for pair in tasks.value if pair[0].value == name)
    end = _end(old)
    while text[end - 1] in "\r\n":  # which belong to a block of text
        end -= 1
    changed = f"{text[: key.end_mark.index]}: {_flow(dict(section))}{text[end:]}"
    try:
        after = parse_config(changed, where=str(PARAMS))
        written = yaml.safe_load(changed)["tasks"]
    except ConfigError as error:
        about = [line for line in error.problems if line.startswith(f"tasks.{name}")]
        if about:
            raise ConfigError(f"task {name}", about) from error
        raise _by_hand(name, section) from error
    except (LookupError, yaml.YAMLError) as error:
        raise _by_hand(name, section) from error
    wanted = before.model_copy(
        update={"tasks": {**before.tasks, name: after.tasks.get(name, before.tasks[name])}}
    )
    if after != wanted or list(written) != list(before.tasks) or written[name] != section:
        raise _by_hand(name, section)
    return changed


def delete_task(text: str, name: str) -> str:
    r"""Return a configuration's text with one task less, and else unchanged.

    Comments between tasks stay: they may be about more than the one below them.

    >>> text = "profile: full\nprofiles: {full: {}}\ntasks:\n  pets: {data: photos} # mine\n"
    >>> print(delete_task(text, "pets"), end="")
    profile: full
    profiles: {full: {}}
    tasks: {}
    """
    before = parse_config(text, where=str(PARAMS))
    if name not in before.tasks:
        return text
    rest = {task: value for task, value in before.tasks.items() if task != name}
    wanted = before.model_copy(update={"tasks": rest})
    try:
        changed = _delete(text, name)
        right = parse_config(changed, where=str(PARAMS)) == wanted
        # The model has an order only in its dictionary, which equality does not look at.
        right = right and list(yaml.safe_load(changed)["tasks"]) == list(rest)
    except (ConfigError, LookupError, yaml.YAMLError):
        right = False
    if not right:
        raise InputError(
            f"{PARAMS} has a form that a program cannot take a task out of; nothing was changed",
            fix=f"delete {name} from it by hand, below tasks:, then repeat the command",
        )
    return changed


def _edit(root: Path, change: Callable[[str], str]) -> BankConfig:
    path = root / PARAMS
    with writable(root), locked(root / "registry" / ".lock"):
        # newline="": a file with Windows line ends keeps them
        with path.open(encoding="utf-8", newline="") as stream:
            text = stream.read()
        changed = change(text)
        if changed != text:
            replace_file(path, changed.encode(), alone=True)
    return parse_config(changed, where=str(PARAMS))


def _delete(text: str, name: str) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    entries = root.value if isinstance(root, yaml.MappingNode) else []
    label, tasks = next((key, value) for key, value in entries if key.value == "tasks")
    index = next(i for i, (key, _) in enumerate(tasks.value) if key.value == name)
    starts = [key.start_mark.index for key, _ in tasks.value]
    if tasks.flow_style:
        return _delete_flow(text, tasks, index)
    begin = text.rfind("\n", 0, starts[index]) + 1
    following = [text.rfind("\n", 0, start) + 1 for start in starts[index + 1 :]]
    end = following[0] if following else tasks.end_mark.index
    lines = text[begin:end].splitlines(keepends=True)
    kept: list[str] = []
    while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        kept.insert(0, lines.pop())
    changed = f"{text[:begin]}{''.join(kept)}{text[end:]}"
    if len(starts) > 1:
        return changed
    colon = label.end_mark.index + 1  # `tasks:` alone would be null, which DVC cannot iterate
    return f"{changed[:colon]} {{}}{changed[colon:]}"


def _delete_flow(text: str, tasks: yaml.MappingNode, index: int) -> str:
    """Delete from ``{a: …, b: …}``, together with one of the commas around it."""
    key, value = tasks.value[index]
    begin, end = key.start_mark.index, value.end_mark.index
    if index + 1 < len(tasks.value):
        end = tasks.value[index + 1][0].start_mark.index
    elif index > 0:
        begin = tasks.value[index - 1][1].end_mark.index
    elif text[end:].lstrip().startswith(","):
        end = text.index(",", end) + 1
    return text[:begin] + text[end:]


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
