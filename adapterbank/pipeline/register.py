"""The ``register`` stage: what was evaluated, published as an immutable version."""

from __future__ import annotations

from adapterbank.bank.bank import Bank, write_json
from adapterbank.bank.mirror import mirror
from adapterbank.errors import InputError
from adapterbank.pipeline.notes import run_id
from adapterbank.registry.versions import Version

REGISTERED = "registered.json"


def register(bank: Bank, task: str) -> Version:
    """Publish the evaluated version and mirror it to MLflow. Equal bytes are one version.

    Raises:
        InputError: ``evaluate`` has not run.
        AdapterBankError: MLflow did not answer; the version is registered all the same, and
            running the stage again finishes the mirror.
    """
    directory = bank.version(task)
    if not directory.is_dir():
        raise InputError(f"{directory}: not there yet", fix=f"dvc repro evaluate@{task}")
    version = bank.registry.register_directory(directory, task=task, reason="dvc repro")
    mirror(bank, version, run_id=run_id(bank, task))
    write_json(bank.note(task, REGISTERED), {"task": task, "version": version.version,
                                             "digest": version.digest})  # fmt: skip
    return version
