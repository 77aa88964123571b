"""A scenario: tasks in the order in which a bank shall learn them, as a YAML file.

.. code-block:: yaml

    tasks:
      - {task: pets, data: photos/pets, classes: [cat, dog]}
      - {task: farm, data: photos/pets, classes: [cow, hen]}    # new classes within a data set
      - {task: drawn, data: drawings, domain_of: pets}          # a new domain of a task
      - {task: pets, data: photos/pets-2026}                    # a new version of an old task

An entry is a task's section of ``pipelines/params.yaml`` with its name: what it says is written
there when its turn comes. All of a file is checked before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterbank.bank.bank import Bank
from adapterbank.bank.new_task import Source, check_method, check_source
from adapterbank.config.bank import TaskConfig, check_task
from adapterbank.config.yaml import read_mapping
from adapterbank.errors import AdapterBankError, ConfigError, InputError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One task's turn."""

    task: str  # one that was there before means a new version of that task
    section: Mapping[str, Any]  # keys and values as ``pipelines/params.yaml`` gets them
    config: TaskConfig  # the same, checked


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """All entries in order, at least one; no two of one task are equal."""

    path: Path
    entries: tuple[Entry, ...]


def load_scenario(bank: Bank, path: Path) -> Scenario:
    """Read a scenario and check all of it against a bank.

    Folders are relative to the bank, as they are in ``pipelines/params.yaml``.

    Raises:
        ConfigError: every problem in it, at once.
        InputError: no such file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    content = read_mapping(text, str(path))
    listed = content.get("tasks")
    problems = [f"{key}: unknown key, expected only tasks" for key in content if key != "tasks"]
    if not isinstance(listed, list) or not listed:
        problems.append("tasks: expected a list of at least one task")
        raise ConfigError(str(path), problems)
    entries: list[Entry] = []
    for number, item in enumerate(listed, start=1):
        try:
            entries.append(_entry(item))
        except ConfigError as error:
            problems += [_placed(number, item, line) for line in error.problems]
    if len(entries) == len(listed):
        for number, lines in _meaning(bank, entries):
            problems += [_placed(number, listed[number - 1], line) for line in lines]
    if problems:
        raise ConfigError(str(path), problems)
    return Scenario(path=path, entries=tuple(entries))


def _placed(number: int, item: object, line: str) -> str:
    name = f" ({item['task']})" if isinstance(item, dict) and "task" in item else ""
    return f"tasks, entry {number}{name}: {line}"


def _entry(item: object) -> Entry:
    """Read an entry.

    Raises:
        ConfigError: its form is wrong; every problem is named.
    """
    if not isinstance(item, dict):
        raise ConfigError("entry", ["expected keys and values"])
    section, task = {key: value for key, value in item.items() if key != "task"}, item.get("task")
    if isinstance(task, str):
        return Entry(task=task, section=section, config=check_task(task, section))
    problems = ["task: a name is missing"]
    try:
        check_task("unnamed", section)
    except ConfigError as error:
        problems += error.problems
    raise ConfigError("entry", problems)


def _meaning(bank: Bank, entries: Sequence[Entry]) -> Iterator[tuple[int, list[str]]]:
    """Check what entries name: data, methods, classes, other tasks."""
    sources: dict[str, Source] = {}
    for number, entry in enumerate(entries, start=1):
        lines: list[str] = []
        config, earlier = entry.config, entries[: number - 1]
        try:
            sources[entry.task] = check_source(bank.root, config)
        except AdapterBankError as error:
            lines.append(f"data: {error.message}")
        try:
            check_method(config.method, config.hyper, config.train)
        except AdapterBankError as error:
            lines.append(error.message)
        for other, same in enumerate(earlier, start=1):
            if same.task == entry.task and same.config == config:
                lines.append(f"is what entry {other} says: there is nothing new to learn")
        lines += _classes(entry, sources)
        others = {before.task for before in earlier} | set(bank.config.tasks) - {entry.task}
        if config.domain_of is not None and config.domain_of not in others:
            lines.append(f"domain_of: no task {config.domain_of!r} comes before it")
        if lines:
            yield number, lines


def _classes(entry: Entry, sources: Mapping[str, Source]) -> Iterator[str]:
    """Check classes where they are known without decoding anything: those of folders."""
    own, parent = sources.get(entry.task), sources.get(entry.config.domain_of or "")
    if own is None or not own.classes:
        return
    wanted = entry.config.classes
    strange = [name for name in wanted or () if name not in own.classes]
    if strange:
        yield f"classes: {own.uri} has no {', '.join(strange)}, only {', '.join(own.classes)}"
    if wanted is None and parent is not None and parent.classes not in {(), own.classes}:
        yield (
            f"domain_of: {entry.config.domain_of} has the classes {', '.join(parent.classes)}, not"
            f" {', '.join(own.classes)}"
        )
