"""Adding a task to ``pipelines/params.yaml``, replacing and removing one, as a person would.

Only the lines of that task change. ruamel.yaml could write all of the file anew, but it would
indent anew, move comments and lose those between tasks. What is to be written is read again: it
says what the file said before with that one task more, less or other, or nothing is written.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from adapterbank.config.bank import PARAMS, BankConfig, TaskConfig, check_task, parse_config
from adapterbank.config.yaml import read_mapping, read_nodes, read_yaml
from adapterbank.durable import locked, make_directory, replace_file, writable
from adapterbank.errors import ConfigError, ConflictError, InputError

_WHERE = str(PARAMS)

# What one version of YAML or the other reads as a number, a date, a switch or nothing.
_NOT_TEXT = re.compile(
    r"[-+.]?[0-9].*|[-+]?\.(inf|nan)|y|n|yes|no|on|off|true|false|null|~|=|<<", re.IGNORECASE
)


def add_task(root: Path, name: str, section: Mapping[str, Any]) -> BankConfig:
    """Write a new task into a bank's configuration.

    Args:
        root: the bank.
        name: of the new task.
        section: its keys and values, see :class:`~adapterbank.config.bank.TaskConfig`. Its method
            is written in any case, so that a pipeline can depend on the method's code.

    Returns:
        The configuration with the task in it.

    Raises:
        AdapterBankError: the disk is full or read-only.
        ConfigError: the section or the file has problems; all are named.
        ConflictError: there is such a task.
        InputError: the file has a form that a program cannot edit.
    """

    def added(text: str) -> str:
        if name in parse_config(text, _WHERE).tasks:
            raise ConflictError(
                f"Task {name!r} exists already in {PARAMS}",
                fix=f"adapterbank task show {name}, or choose another name",
            )
        return with_task(text, name, section)

    return _edit(root, added)


def replace_task(root: Path, name: str, section: Mapping[str, Any]) -> BankConfig:
    """Put another section in the place of a task's, which keeps its place in the order.

    Raises:
        UnknownName: no such task.
        AdapterBankError: see :func:`add_task`.
    """

    def replaced(text: str) -> str:
        parse_config(text, _WHERE).task(name)  # there is one
        return with_task(text, name, section)

    return _edit(root, replaced)


def remove_task(root: Path, name: str) -> BankConfig:
    """Take a task out of a bank's configuration; nothing happens where there is no such task.

    Raises:
        AdapterBankError: see :func:`add_task`.
    """
    return _edit(root, lambda text: without_task(text, name))


def with_task(text: str, name: str, section: Mapping[str, Any]) -> str:
    r"""Return a configuration's text with one task more, or with another section of it.

    >>> text = "profile: full\nprofiles: {full: {}}\ntasks:\n  pets: {data: photos} # mine\n"
    >>> text = with_task(text, "pets", {"data": "new", "method": "linear"})
    >>> print(with_task(text, "cars", {"data": "cars"}), end="")
    profile: full
    profiles: {full: {}}
    tasks:
      pets: {data: new, method: linear} # mine
      cars:
        data: cars
        method: vapt

    Raises:
        ConfigError: the section or the text has problems; all are named.
        InputError: the text has a form that a program cannot edit.
    """
    check_task(name, section)
    method = {"method": TaskConfig.model_fields["method"].default}
    section = {"data": section["data"], **method, **section}
    content = read_mapping(text, _WHERE)
    content["tasks"] = {**(content.get("tasks") or {}), name: section}
    return _checked(text, name, section, content)


def without_task(text: str, name: str) -> str:
    r"""Return a configuration's text with one task less.

    Comments between tasks stay: they may be about more than the one below them.

    >>> text = "profile: full\nprofiles: {full: {}}\ntasks:\n  pets: {data: photos} # mine\n"
    >>> print(without_task(text, "pets"), end="")
    profile: full
    profiles: {full: {}}
    tasks: {}

    Raises:
        ConfigError: the text has problems; all are named.
        InputError: the text has a form that a program cannot edit.
    """
    if name not in parse_config(text, _WHERE).tasks:
        return text
    content = read_mapping(text, _WHERE)
    del content["tasks"][name]
    return _checked(text, name, None, content)


def _edit(root: Path, change: Callable[[str], str]) -> BankConfig:
    path = root / PARAMS
    with writable(root):
        make_directory(root / "registry")
        with locked(root / "registry" / ".lock"):
            # newline="": a file with Windows line ends keeps them
            with path.open(encoding="utf-8", newline="") as stream:
                text = stream.read()
            changed = change(text)
            if changed != text:
                replace_file(path, changed.encode(), alone=True)
    return parse_config(changed, _WHERE)


def _checked(
    text: str, name: str, section: Mapping[str, Any] | None, content: Mapping[str, Any]
) -> str:
    """Edit a text; refuse the result if it does not say ``content``."""
    # repr tells 1, 1.0 and true apart, and one order from another; == does not.
    wanted = repr(content)
    if repr(read_mapping(text, _WHERE)) == wanted:
        return text
    try:
        changed = _edited(_with_lines(text), name, section)
        right = repr(read_mapping(changed, _WHERE)) == wanted
    except (ConfigError, LookupError):
        right = False
    if right:
        return changed
    by_hand, lines = f"delete {name} from it by hand, below tasks:, then repeat the command", ""
    if section is not None:
        by_hand, lines = "write the lines above into it under tasks:", _lines(name, section, "", 2)
    raise InputError(
        f"{PARAMS} has a form that a program cannot edit; nothing was written",
        more=lines.splitlines(),
        fix=by_hand,
    )


def _edited(text: str, name: str, section: Mapping[str, Any] | None) -> str:
    """Write a task's lines, or take them out where there is no section."""
    newline = "\r\n" if "\r\n" in text else "\n"
    label, tasks = _tasks_node(text)
    spans, indent, end = {}, 2, text.find("\n", label.end_mark.index) + 1 or len(text)
    if isinstance(tasks, MappingNode):
        indent = tasks.value[0][0].start_mark.column
        starts = [key.start_mark.index - indent for key, _ in tasks.value]
        for (key, _), start, stop in zip(
            tasks.value, starts, [*starts[1:], tasks.end_mark.index], strict=True
        ):
            # Without the comments and empty lines below it.
            own = re.sub(r"(?:^[ \t\r]*(?:#.*)?\n?)*\Z", "", text[start:stop], flags=re.MULTILINE)
            end = start + len(own)
            spans[key.value] = (start, end)
    if section is None:
        start, end = spans.pop(name)
        colon = label.end_mark.index + 1  # `tasks:` alone would be null, which DVC cannot iterate
        return f"{text[:colon]}{'' if spans else ' {}'}{text[colon:start]}{text[end:]}"
    start, end = spans.get(name, (end, end))
    lines = _lines(name, section, text[start:end], indent).replace("\n", newline)
    gap = "" if text[:start].endswith("\n") else newline
    return f"{text[:start]}{gap}{lines}{text[end:]}"


def _with_lines(text: str) -> str:
    """Give each task a line where they stand in braces, or where there is none yet.

    Raises:
        LookupError: comments within the braces would be lost.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    label, tasks = _tasks_node(text)
    if label is None:
        return f"{text.rstrip()}{newline}{newline}tasks:{newline}"
    braces = text[tasks.start_mark.index : tasks.end_mark.index]
    entries = tasks.value if isinstance(tasks, MappingNode) else []
    if not braces or (entries and not tasks.flow_style):
        return text
    lines = [f"  {text[key.start_mark.index : value.end_mark.index]}" for key, value in entries]
    before = text[label.end_mark.index + 1 : tasks.start_mark.index]
    if "#" in before or braces.count("#") > "".join(lines).count("#"):
        raise LookupError
    rest, mark, below = text[tasks.end_mark.index :].partition("\n")
    head = text[: label.end_mark.index + 1] + rest.rstrip("\r")
    return newline.join([head, *lines, below]) if lines or mark else head


def _tasks_node(text: str) -> tuple[Any, Any]:
    """Find the nodes of the key ``tasks`` and of its value; None and None where there is none."""
    pairs = read_nodes(text, _WHERE).value
    return next(((key, value) for key, value in pairs if key.value == "tasks"), (None, None))


def _lines(name: str, section: Mapping[str, Any], old: str, indent: int) -> str:
    """Write a task's lines: in one where the old ones are, and with the comments in those."""
    comments, key = re.findall(r"(?:^|\s)(#[^\r\n]*)", old), _flow(name)  # 123 needs quotes
    if old and "\n" not in old.rstrip():
        body = f"{key}: {' '.join([_flow(dict(section)), *comments])}\n"
    else:
        lines = [*comments, f"{key}:", *(f"  {k}: {_flow(value)}" for k, value in section.items())]
        body = "".join(f"{line}\n" for line in lines)
    return textwrap.indent(body, " " * indent)


def _flow(value: object) -> str:
    """Write a value on one line, letters of every script as they are where YAML allows it."""
    text = _dump(value, allow_unicode=True)
    try:
        right = repr(read_yaml(text, _WHERE)) == repr(value)
    except ConfigError:
        right = False
    return text if right else _dump(value, allow_unicode=False)


def _dump(value: object, *, allow_unicode: bool) -> str:
    yaml, stream = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style, yaml.width, yaml.allow_unicode = True, 1 << 30, allow_unicode
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # None by default
    yaml.Representer = _Representer
    yaml.dump(value, stream)
    return stream.getvalue().removesuffix("...\n").strip()


class _Representer(SafeRepresenter):
    """Quotes text that YAML 1.1, which other programs read, takes for something else."""


def _represent_text(representer: _Representer, text: str) -> ScalarNode:
    style = "'" if _NOT_TEXT.fullmatch(text) else None
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Representer.add_representer(str, _represent_text)
