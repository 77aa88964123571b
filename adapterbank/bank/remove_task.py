"""Remove a task: build it no more, answer it no more, keep all that was published."""

from __future__ import annotations

from dataclasses import dataclass

from adapterbank.bank.bank import Bank
from adapterbank.bank.mirror import follow_aliases
from adapterbank.config.params_file import remove_task as remove_from_params
from adapterbank.errors import UnknownName
from adapterbank.registry.task_record import Event


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What a removal did; a second one of the same task finds nothing to do.

    ``mirror`` says why MLflow still shows an alias, None where it does not.
    """

    task: str
    configured: bool  # it was in pipelines/params.yaml until now
    events: tuple[Event, ...]  # the aliases taken away, as history has them
    versions: int  # kept
    mirror: str | None


def remove_task(bank: Bank, task: str, *, reason: str = "") -> Removal:
    """Take a task out of the configuration, then its aliases away.

    No bytes are deleted and history goes on, so ``promote TASK@N`` brings the answers back. In
    this order a file that no program can edit stops it before anything has changed. Killed
    between the two, the task is only built no more; the same command does the rest.

    Raises:
        AdapterBankError: the disk is full or read-only.
        InputError: ``pipelines/params.yaml`` has a form that a program cannot take a task out of.
        UnknownName: neither the configuration nor the registry has such a task.
    """
    registered = bank.registry.tasks()
    configured = task in bank.config.tasks
    if not configured and task not in registered:
        names = {*registered, *bank.config.tasks}
        raise UnknownName("task", task, names, fix="adapterbank task list")
    if configured:
        remove_from_params(bank.root, task)
    if task not in registered:
        return Removal(task=task, configured=configured, events=(), versions=0, mirror=None)
    events = bank.registry.retire(task, reason=reason)
    return Removal(
        task=task,
        configured=configured,
        events=events,
        versions=len(bank.registry.versions(task)),
        mirror=follow_aliases(bank, task),
    )
