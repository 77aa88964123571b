"""Let MLflow follow the registry, and say why where it does not.

The registry is what counts and has moved already, so a mirror that fails undoes nothing and stops
nobody: it is reported, and done at the next occasion.
"""

from __future__ import annotations

from collections.abc import Callable

from adapterbank.bank.bank import Bank
from adapterbank.errors import AdapterBankError
from adapterbank.inference.artifact import ADAPTER_CONFIG
from adapterbank.integrations.mlflow.mirror import lookup, mirror_alias, mirror_version
from adapterbank.records import ROUTER
from adapterbank.registry.adapter_config import parse_adapter_config
from adapterbank.registry.manifest import MANIFEST, md5_of
from adapterbank.registry.task_record import PREVIOUS, RETIRE
from adapterbank.registry.verdicts import verdict_tags
from adapterbank.registry.versions import Version


def mirror(bank: Bank, version: Version, *, run_id: str | None = None) -> None:
    """Show a registered version in MLflow's model registry."""
    content = bank.registry.read(version)
    config = parse_adapter_config(content[ADAPTER_CONFIG])
    mirror_version(
        bank.root, version.task, version.version, version.digest, md5_of(content[MANIFEST]),
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


def mirror_aliases(
    bank: Bank, task: str, *, refused: int | None = None, strays: bool = False
) -> None:
    """Let MLflow's aliases of a task stand where the registry's do, and take away what it took.

    Args:
        bank: an open bank.
        task: the task.
        refused: a version whose last verdict is to be shown too; no alias stands on it.
        strays: also take away the aliases of our versions that were only ever set in MLflow.
    """
    shown = lookup(bank.root, task)  # the common case costs one question and reads no bytes
    versions, aliases = bank.registry.overview(task)
    history = bank.registry.history(task)
    gone = {PREVIOUS, *(event.alias for event in history if event.action == RETIRE)}
    for alias, entry in shown.aliases:
        if alias not in aliases and (alias in gone or (strays and entry.digest is not None)):
            mirror_alias(bank.root, task, alias, None)
    for alias, number in aliases.items():
        version = versions[number - 1]
        standing = shown.aliased(alias)
        if standing is None or standing.digest != version.digest:
            mirror(bank, version)
            mirror_alias(bank.root, task, alias, version.digest)
    if refused is not None:
        version = versions[refused - 1]
        wanted, judged = verdict_tags(history, refused), shown.of(version.digest)
        if judged is None or not wanted.items() <= dict(judged.tags).items():
            mirror(bank, version)


def follow_aliases(bank: Bank, task: str, *, refused: int | None = None) -> str | None:
    """Let MLflow show a task as the registry has it; it is not shown the router.

    Returns:
        why it does not; None if it does.
    """
    if task == ROUTER:
        return None
    return why_not(lambda: mirror_aliases(bank, task, refused=refused))


def follow_version(bank: Bank, version: Version) -> str | None:
    """Show a registered version in MLflow.

    Returns:
        why it is not shown; None if it is.
    """
    return why_not(lambda: mirror(bank, version))


def why_not(step: Callable[[], None]) -> str | None:
    """Take a step that a mirror may refuse.

    Returns:
        why it did; None if it did not.
    """
    try:
        step()
    except AdapterBankError as error:
        return error.message
    except OSError as error:
        return str(error)
    return None
