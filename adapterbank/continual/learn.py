"""Learn a scenario: write one task after the other, and let the pipeline release each.

``learn`` keeps no state of its own. What ``pipelines/params.yaml`` says tells how far it got, and
``dvc repro`` finishes what was begun, so a run that was killed goes on when it is repeated, and
writing all tasks by hand and one ``dvc repro`` is the same thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from adapterbank.bank.bank import RELEASE_REPORT, Bank, read_note
from adapterbank.config.bank import TaskConfig, load_config
from adapterbank.config.params_file import add_task, replace_task
from adapterbank.continual.matrix import Kind, kind_of, read_matrix
from adapterbank.continual.scenario import Entry, Scenario
from adapterbank.errors import GateRefused
from adapterbank.integrations.dvc.repo import repro
from adapterbank.registry.verdicts import Verdict

Outcome = Literal["learned", "learned before", "refused", "kept"]
"""Its version is the champion; a later entry was begun already; a gate refused its version; its
version is not served for another reason."""

_FIX: Final = "dvc repro"


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What became of one entry."""

    step: int  # its place in the scenario, from 1
    task: str
    kind: Kind  # what it was to the bank
    outcome: Outcome
    version: int | None = None  # that was judged; None for ``learned before``
    reason: str = ""  # in ``release``'s words; empty for ``learned before``


def learn(
    bank: Bank,
    scenario: Scenario,
    *,
    keep_going: bool = False,
    show: Callable[[Learned | None, int, Entry], None] | None = None,
    run: Callable[[Path], None] = repro,
) -> tuple[Learned, ...]:
    """Learn what a bank has not learned yet of a scenario.

    Args:
        bank: an open bank, set up for DVC.
        scenario: checked against it.
        keep_going: go on after a version that a gate refused.
        show: called before an entry is run, with None, and after, with what became of it; also
            with its place, from 1.
        run: brings the pipeline of a bank's folder up to date.

    Returns:
        What became of each entry, in order.

    Raises:
        AdapterBankError: a stage failed; repeating the command goes on from there.
        GateRefused: a gate refused a version, and ``keep_going`` is not set.
    """
    entries, past = scenario.entries, {step.task for step in read_matrix(bank.root).steps}
    begun = first_to_run(bank.config.tasks, entries)
    learned: list[Learned] = []
    for place, entry in enumerate(entries):
        again = any(earlier.task == entry.task for earlier in entries[:place])
        kind = kind_of(entry.config, known=again or (entry.task in past and place >= begun))
        if place < begun:
            learned.append(Learned(step=place + 1, task=entry.task, kind=kind,
                                   outcome="learned before"))  # fmt: skip
            continue
        if show is not None:
            show(None, place + 1, entry)
        _write(bank.root, entry)
        run(bank.root)
        result = _outcome(bank.root, place + 1, entry, kind)
        learned.append(result)
        if show is not None:
            show(result, place + 1, entry)
        if result.outcome == "refused" and not keep_going:
            raise GateRefused(
                f"entry {place + 1} of {len(entries)}: {entry.task}@{result.version} was refused:"
                f" {result.reason}",
                fix=f"adapterbank learn {scenario.path} --keep-going goes on without it; or mend"
                " the entry, or gates: in pipelines/params.yaml, and repeat the command",
            )
    return tuple(learned)


def first_to_run(tasks: Mapping[str, TaskConfig], entries: Sequence[Entry]) -> int:
    """Tell which entry is to be run first, by what is configured.

    An entry was begun if the configuration has its section, or that of a later entry of its task.
    The last of the entries that were begun one after the other may be unfinished; those before it
    were released, for only then is the next one begun.

    Args:
        tasks: sections by task, as they are configured.
        entries: of a scenario.

    Returns:
        The place of the entry, from 0.
    """
    reached: dict[str, int] = {}
    for place, entry in enumerate(entries):
        if tasks.get(entry.task) == entry.config:
            reached[entry.task] = place
    count = 0
    while count < len(entries) and reached.get(entries[count].task, -1) >= count:
        count += 1
    return max(0, count - 1)


@dataclass(frozen=True, kw_only=True)
class _Report:
    verdicts: tuple[Verdict, ...]


def _write(root: Path, entry: Entry) -> None:
    """Let the configuration say what an entry says."""
    tasks = load_config(root).tasks
    if entry.task not in tasks:
        add_task(root, entry.task, entry.section)
    elif tasks[entry.task] != entry.config:
        replace_task(root, entry.task, entry.section)


def _outcome(root: Path, step: int, entry: Entry, kind: Kind) -> Learned:
    report = read_note(root / RELEASE_REPORT, _Report, fix=_FIX)
    verdict = next((v for v in report.verdicts if v.task == entry.task), None)
    outcomes: Mapping[str, Outcome] = {"promoted": "learned", "unchanged": "learned",
                                       "refused": "refused"}  # fmt: skip
    steps = [past for past in read_matrix(root).steps if past.task == entry.task]
    version = None if verdict is None else verdict.version
    noted = steps[-1].kind if steps and steps[-1].version == version else kind
    return Learned(
        step=step,
        task=entry.task,
        kind=noted,
        outcome="kept" if verdict is None else outcomes.get(verdict.outcome, "kept"),
        version=version,
        reason="there is no version of it" if verdict is None else verdict.reason,
    )
