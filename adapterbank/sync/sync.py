"""Bring the mirrors back to what the registry says, or take an alias moved in MLflow over."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from adapterbank.bank.bank import Bank
from adapterbank.bank.mirror import follow_aliases, follow_version
from adapterbank.errors import AdapterBankError
from adapterbank.integrations.dvc.repo import keep_output
from adapterbank.integrations.mlflow.mirror import lookup, mirror_alias, source_uri
from adapterbank.integrations.mlflow.repair import drop_version, tag_digest
from adapterbank.integrations.mlflow.store import store_exists
from adapterbank.registry.manifest import MANIFEST
from adapterbank.registry.task_record import PREVIOUS
from adapterbank.registry.versions import Version
from adapterbank.release.moves import promote
from adapterbank.sync.status import BACKBONE, UNKNOWN, Drift, find_drift, shown_of

ADOPTED = "adopted from MLflow"


@dataclass(frozen=True, kw_only=True)
class SyncReport:
    """What was done, what could not be, and the differences there still are.

    ``refused`` has the exit codes of the errors that kept aliases from being adopted.
    """

    done: tuple[str, ...]
    failed: tuple[str, ...]
    left: tuple[Drift, ...]
    refused: frozenset[int] = frozenset()

    @property
    def complete(self) -> bool:
        """Whether MLflow and DVC follow; what is left to Git, the remote and people is theirs."""
        return not self.failed and not any(
            one.place in {"mlflow", "dvc"} and one.fix != UNKNOWN for one in self.left
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
    done: list[str] = []
    failed: list[str] = []
    refused: set[int] = set()
    if adopt and store_exists(bank.root):
        refused |= _adopt(bank, done, failed)
    before = find_drift(bank.registry)
    rebuilt = not store_exists(bank.root)
    silent = [one for one in before if one.place == "mlflow" and one.task is None and not rebuilt]
    failed += [f"MLflow shows nothing: {one.message}" for one in silent]
    # Asked once: a server that is down costs seconds each time, and a bank has many tasks.
    for task in () if silent else _tasks(before, "mlflow", bank):
        _show_task(bank, task, done, failed)
    if rebuilt and not failed and any(one.place == "mlflow" for one in before):
        done.append("MLflow's catalogue was rebuilt from the registry; the runs are gone")
    _keep(bank, before, failed)
    after = find_drift(bank.registry)
    left = {drift.message for drift in after}
    mended = [drift for drift in before if drift.message not in left]
    done = [*done, *(f"mended: {drift.message}" for drift in mended if drift.task)]
    return SyncReport(
        done=tuple(done), failed=tuple(failed), left=after, refused=frozenset(refused)
    )


def _tasks(drifts: tuple[Drift, ...], place: str, bank: Bank) -> tuple[str, ...]:
    """Which tasks a place lacks something of; a place that is missing lacks all of them."""
    found = {drift.task for drift in drifts if drift.place == place}
    return tuple(task for task in bank.registry.tasks() if task in found or None in found)


def _keep(bank: Bank, before: tuple[Drift, ...], failed: list[str]) -> None:
    outputs = {f"register@{task}": f"registry/adapters/{task}"
               for task in _tasks(before, "dvc", bank)}  # fmt: skip
    if any(drift.message.endswith(BACKBONE) for drift in before if drift.place == "dvc"):
        outputs["backbone"] = BACKBONE
    for stage, output in outputs.items():
        problem = keep_output(bank.root, stage, output)
        if problem is not None:
            failed.append(f"DVC does not keep {output}: {problem}")


def _show_task(bank: Bank, task: str, done: list[str], failed: list[str]) -> None:
    try:
        for version in bank.registry.versions(task):
            _show_version(bank, version, done, failed)
        _take_aliases_away(bank, task)
    except AdapterBankError as error:
        failed.append(f"MLflow does not show {task}: {error.message}")
        return
    problem = follow_aliases(bank, task)
    if problem is not None:
        failed.append(f"MLflow does not show the aliases of {task}: {problem}")


def _show_version(bank: Bank, version: Version, done: list[str], failed: list[str]) -> None:
    try:
        source = source_uri(_manifest_md5(bank, version))
    except AdapterBankError as error:  # its bytes; the other versions are shown all the same
        failed.append(f"MLflow does not show {version}: {error.message}")
        return
    shown = shown_of(lookup(bank.root, version.task), version, source)
    if shown is not None and shown.source != source:
        drop_version(bank.root, version.task, shown.number)
        done.append(f"MLflow's version {shown.number} of {version.task} was made anew")
    elif shown is not None and shown.digest != version.digest:
        tag_digest(bank.root, version.task, shown.number, version.digest)
    problem = follow_version(bank, version)
    if problem is not None:
        failed.append(f"MLflow does not show {version}: {problem}")


def _take_aliases_away(bank: Bank, task: str) -> None:
    """Take away the aliases of our versions that only MLflow has."""
    ours = bank.registry.aliases(task)
    for alias, shown in lookup(bank.root, task).aliases:
        if alias not in ours and shown.digest is not None:
            mirror_alias(bank.root, task, alias, None)


def _adopt(bank: Bank, done: list[str], failed: list[str]) -> set[int]:
    """Promote what MLflow's aliases mean; return the exit codes of what was refused."""
    refused = set()
    for task in bank.registry.tasks():
        try:
            numbers = {one.digest: one.version for one in bank.registry.versions(task)}
            ours = bank.registry.aliases(task)
        except AdapterBankError as error:
            failed.append(f"nothing of {task} was adopted: {error.message}")
            continue
        try:
            theirs = lookup(bank.root, task).aliases
        except AdapterBankError as error:
            failed.append(f"nothing was adopted: {error.message}")
            break  # MLflow would not answer for the next task either
        for alias, shown in theirs:
            number = numbers.get(shown.digest or "")
            if alias == PREVIOUS or number is None or number == ours.get(alias):
                continue  # nobody moves `previous`; what is no version of ours is put right below
            ref = f"{task}@sha256:{shown.digest}"
            try:
                promote(bank, ref, alias=alias, expected=ours.get(alias), reason=ADOPTED)
            except AdapterBankError as error:
                failed.append(f"{task}@{alias} was not adopted: {error.message}")
                refused.add(error.exit_code)
            else:
                done.append(f"{task}@{alias} is version {number} now, {ADOPTED}")
    return refused


def _manifest_md5(bank: Bank, version: Version) -> str:
    manifest = bank.registry.read(version)[MANIFEST]
    return hashlib.md5(manifest, usedforsecurity=False).hexdigest()
