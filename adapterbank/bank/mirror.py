"""Let MLflow follow the registry, and say why where it does not.

The registry is what counts and has moved already, so a mirror that fails undoes nothing and stops
nobody: it is reported, and done at the next occasion.
"""

from __future__ import annotations

import hashlib

from adapterbank.bank.bank import Bank
from adapterbank.errors import AdapterBankError
from adapterbank.inference.artifact import ADAPTER_CONFIG
from adapterbank.integrations.mlflow.mirror import lookup, mirror_alias, mirror_version
from adapterbank.records import ROUTER
from adapterbank.registry.adapter_config import parse_adapter_config
from adapterbank.registry.manifest import MANIFEST
from adapterbank.registry.task_record import PREVIOUS
from adapterbank.registry.verdicts import verdict_tags
from adapterbank.registry.versions import Version


def mirror(bank: Bank, version: Version, *, run_id: str | None = None) -> None:
    """Show a registered version in MLflow's model registry."""
    content = bank.registry.read(version)
    config = parse_adapter_config(content[ADAPTER_CONFIG])
    mirror_version(
        bank.root, version.task, version.version, version.digest,
        hashlib.md5(content[MANIFEST], usedforsecurity=False).hexdigest(),
        tags={
            "kind": "adapter",
            "method": config.method.name,
            "backbone": config.backbone.fingerprint,
            "data": config.data.digest,
            "path": str(version.path.relative_to(bank.root)),
            **verdict_tags(bank.registry.history(version.task), version.version),
            **({"parents": " ".join(config.parents)} if config.parents else {}),
        },
        run_id=run_id,
    )  # fmt: skip


def follow_aliases(bank: Bank, task: str) -> str | None:
    """Let MLflow's aliases of a task stand where the registry's do; it is not shown the router.

    Returns:
        why they do not; None if they do.
    """
    if task == ROUTER:
        return None
    try:
        _mirror_aliases(bank, task)
    except AdapterBankError as error:
        return error.message
    except OSError as error:
        return str(error)
    return None


def follow_version(bank: Bank, version: Version) -> str | None:
    """Show a registered version in MLflow.

    Returns:
        why it is not shown; None if it is.
    """
    try:
        mirror(bank, version)
    except AdapterBankError as error:
        return error.message
    except OSError as error:
        return str(error)
    return None


def follow_verdict(bank: Bank, task: str, number: int) -> str | None:
    """Show the last verdict on a version in MLflow, which an alias that stays does not.

    Returns:
        why it is not shown; None if it is.
    """
    try:
        version = bank.registry.resolve(f"{task}@{number}")
        wanted = verdict_tags(bank.registry.history(task), number)
        shown = lookup(bank.root, task).of(version.digest)
        if shown is not None and wanted.items() <= dict(shown.tags).items():
            return None  # the common case costs one question and reads no bytes
    except AdapterBankError as error:
        return error.message
    return follow_version(bank, version)


def _mirror_aliases(bank: Bank, task: str) -> None:
    aliases = bank.registry.aliases(task)
    shown = {alias: found.digest for alias, found in lookup(bank.root, task).aliases}
    if PREVIOUS in shown and PREVIOUS not in aliases:  # the one alias that can vanish
        mirror_alias(bank.root, task, PREVIOUS, None)
    for alias, number in aliases.items():
        version = bank.registry.resolve(f"{task}@{number}")
        if shown.get(alias) != version.digest:  # the common case costs one question
            mirror(bank, version)
            mirror_alias(bank.root, task, alias, version.digest)
