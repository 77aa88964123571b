"""Bring the mirrors back to what the registry says, or take an alias moved in MLflow over."""

from __future__ import annotations

from dataclasses import dataclass, field

from adapterbank.bank.bank import Bank
from adapterbank.bank.keep import keep_versions
from adapterbank.bank.mirror import follow_version, mirror_aliases, why_not
from adapterbank.errors import AdapterBankError
from adapterbank.integrations.dvc.objects import DvcObjects
from adapterbank.integrations.mlflow.mirror import lookup
from adapterbank.integrations.mlflow.store import displaced_experiments, set_aside, store_exists
from adapterbank.registry.task_record import PREVIOUS
from adapterbank.release.moves import promote
from adapterbank.sync.status import (
    BACKBONE,
    SYNC,
    UNKNOWN,
    Discrepancy,
    compare_mirrors,
    find_discrepancies,
)

ADOPTED = "adopted from MLflow"


@dataclass(kw_only=True)
class SyncReport:
    """What was done so far, what could not be, and in the end the differences there still are.

    ``refused`` has the exit codes of the errors that kept aliases from being adopted.
    """

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    left: tuple[Discrepancy, ...] = ()
    refused: set[int] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        """Whether MLflow and DVC follow; what is left to Git, the remote and people is theirs."""
        return not self.failed and not any(
            left.place in {"mlflow", "dvc"} and left.fix != UNKNOWN for left in self.left
        )

    @property
    def exit_code(self) -> int:
        """0, or ``promote``'s own where aliases were refused for one reason, or else 1."""
        if self.complete:
            return 0
        return next(iter(self.refused)) if len(self.refused) == 1 else 1


def sync(bank: Bank, *, adopt: bool = False) -> SyncReport:
    """Repair the mirrors; where nothing differs nothing is written.

    A deleted MLflow catalogue is rebuilt: versions, tags and aliases come from the registry, runs
    cannot. Bytes that are damaged are not repaired here: ``verify`` names them and their remedy.

    Args:
        bank: an open bank.
        adopt: first take every alias that means another version in MLflow over, as ``promote``
            would: the version is verified, replays its canary, and the alias is compared and
            swapped. MLflow does not say when an alias was moved, so an MLflow that has only not
            followed yet looks the same as one where somebody moved an alias.
    """
    report = SyncReport()
    if adopt and store_exists(bank.root):
        _adopt(bank, report)
    before = find_discrepancies(bank.registry)
    _repair_mlflow(bank, [item for item in before if item.place == "mlflow"], report)
    _repair_dvc(bank, [item for item in before if item.place == "dvc"], report)
    # Nothing above has changed the registry and the router, whose every byte was just read.
    own = [item for item in before if item.place in {"registry", "router"}]
    report.left = (*own, *compare_mirrors(bank.registry)) if len(own) < len(before) else before
    messages = {item.message for item in report.left}
    report.done += [
        f"mended: {item.message}" for item in before if item.message not in messages and item.task
    ]
    return report


def _repair_mlflow(bank: Bank, discrepancies: list[Discrepancy], report: SyncReport) -> None:
    silent = [item for item in discrepancies if item.task is None and item.fix != SYNC]
    if silent:  # asked once: a server that is down costs seconds each time
        report.failed += [f"MLflow shows nothing: {item.message}" for item in silent]
        return
    rebuilt = not store_exists(bank.root)
    tasks = {item.task for item in discrepancies}
    for task in bank.registry.tasks():
        if task in tasks or rebuilt:
            _repair_task(bank, task, report)
    for experiment in displaced_experiments(bank.root):
        name = set_aside(bank.root, experiment)
        report.done.append(f"MLflow's experiment {experiment.name!r} is {name!r} now")
    if rebuilt and discrepancies and not report.failed:
        report.done.append("MLflow's catalogue was rebuilt from the registry; the runs are gone")


def _repair_task(bank: Bank, task: str, report: SyncReport) -> None:
    try:
        versions = bank.registry.versions(task)
    except AdapterBankError as error:
        report.failed.append(f"MLflow does not show {task}: {error.message}")
        return
    for version in versions:  # where the bytes of one are damaged, the others are shown
        problem = follow_version(bank, version)
        if problem is not None:
            report.failed.append(f"MLflow does not show {version}: {problem}")
    problem = why_not(lambda: mirror_aliases(bank, task, strays=True))
    if problem is not None:
        report.failed.append(f"MLflow does not show the aliases of {task}: {problem}")


def _repair_dvc(bank: Bank, discrepancies: list[Discrepancy], report: SyncReport) -> None:
    for task in sorted({item.task for item in discrepancies if item.task is not None}):
        problem = keep_versions(bank.registry, task)
        if problem is not None:
            report.failed.append(f"DVC does not keep {task}: {problem}")
    if any(item.task is None and item.fix == SYNC for item in discrepancies):
        problem = why_not(lambda: _keep_backbone(bank))
        if problem is not None:
            report.failed.append(f"DVC does not keep {BACKBONE}: {problem}")


def _keep_backbone(bank: Bank) -> None:
    with DvcObjects(bank.root) as objects:
        objects.keep("backbone", BACKBONE, [bank.root / BACKBONE], anew=True)


def _adopt(bank: Bank, report: SyncReport) -> None:
    """Promote what MLflow's aliases mean."""
    for task in bank.registry.tasks():
        try:
            versions, ours = bank.registry.overview(task)
        except AdapterBankError as error:
            report.failed.append(f"nothing of {task} was adopted: {error.message}")
            continue
        try:
            theirs = lookup(bank.root, task).aliases
        except AdapterBankError as error:
            report.failed.append(f"nothing was adopted: {error.message}")
            return  # MLflow would not answer for the next task either
        numbers = {version.digest: version.version for version in versions}
        for alias, shown in theirs:
            number = numbers.get(shown.digest or "")
            if alias == PREVIOUS or number is None or number == ours.get(alias):
                continue  # nobody moves `previous`; what is no version of ours is put right below
            ref = f"{task}@sha256:{shown.digest}"
            try:
                promote(bank, ref, alias=alias, expected=ours.get(alias), reason=ADOPTED)
            except AdapterBankError as error:
                report.failed.append(f"{task}@{alias} was not adopted: {error.message}")
                report.refused.add(error.exit_code)
            else:
                report.done.append(f"{task}@{alias} is version {number} now, {ADOPTED}")
