"""Delete what nothing in a bank needs, nor any commit of it."""

from __future__ import annotations

from adapterbank.bank.bank import Bank
from adapterbank.integrations.git import git_mention
from adapterbank.registry.collect import Waste, collect
from adapterbank.registry.manifest import kind_of


def collect_waste(bank: Bank, *, dry_run: bool) -> tuple[Waste, ...]:
    """Delete leftovers of killed writers, and versions that no record names, now or in Git.

    After ``git checkout`` of an older commit the newer versions look unregistered: they are not.

    Returns:
        what went, or with ``dry_run`` only would, and what stays for a commit's sake.

    Raises:
        AdapterBankError: the disk cannot be written.
        ConflictError: another writer holds the lock.
    """

    def keep(task: str, digest: str) -> str | None:
        return git_mention(bank.root, f"registry/{kind_of(task).record(task)}", digest)

    return collect(bank.registry.root, keep, dry_run=dry_run)
