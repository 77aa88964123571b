"""The versions that a bank serves, and what they store for routers to be built from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from adapterbank.inference.artifact import ROUTING
from adapterbank.registry.manifest import check_some
from adapterbank.registry.store import Registry
from adapterbank.registry.task_record import CHAMPION
from adapterbank.registry.versions import Version
from adapterbank.routing.record import RoutingRecord, read_record


def champions(registry: Registry) -> Iterator[Version]:
    """Yield the champion of every task that has one, in the order of names."""
    for task in registry.tasks():
        versions, aliases = registry.overview(task)
        if CHAMPION in aliases:
            yield versions[aliases[CHAMPION] - 1]


def read_routing(version: Version) -> tuple[RoutingRecord, str] | None:
    """Read a version's routing record and its SHA-256; None where it stores none.

    Raises:
        InputError: it was written before records named their blocks.
        IntegrityError: it is not what was published, or no record.
    """
    files, _ = check_some(version.path, version.digest, (ROUTING,))
    if ROUTING not in files:
        return None
    record = read_record(files[ROUTING], where=f"{version}/{ROUTING}")
    return record, hashlib.sha256(files[ROUTING]).hexdigest()
