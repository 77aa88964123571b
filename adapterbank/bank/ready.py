"""Whether what is in place was made from what the configuration says now.

DVC answers this for the stages it runs; these answers are for commands that work by hand.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

from pydantic_core import to_jsonable_python

from adapterbank.backbones.checkpoint import read_checkpoint
from adapterbank.backbones.fingerprint import fingerprint
from adapterbank.backbones.identity import parse_arch
from adapterbank.backbones.sources import local_file, neutral
from adapterbank.bank.bank import Bank, read_json
from adapterbank.data.store import stored_digest
from adapterbank.errors import FetchError, InputError, IntegrityError

PREPARED = "prepared.json"
"""What ``prepare`` found and from which parameters. It stands beside the data, which DVC hashes:
other parameters that give the same pixels give the same data."""


def data_inputs(bank: Bank, task: str) -> dict[str, Any]:
    """All that a task's prepared data depends on but the images themselves, as JSON reads it.

    The source is hashed, because the path of a folder is this machine's and the note is Git's.
    """
    section = bank.config.task(task)
    used = {
        "data": hashlib.sha256(section.data.encode()).hexdigest(),
        "classes": section.classes,
        "limits": bank.config.active.limits.model_dump(),
        "seed": section.seed,
        "input": asdict(bank.registry.backbone().spec),
    }
    # Only where they are set: earlier notes lack them.
    chosen = {"skip_unreadable": section.skip_unreadable, "drop_copies": section.drop_copies}
    used |= {key: value for key, value in chosen.items() if value}
    plain: dict[str, Any] = to_jsonable_python(used)
    return plain


def data_is_ready(bank: Bank, task: str) -> bool:
    """Whether a task's data is prepared, with the parameters it has now."""
    fix = f"adapterbank train {task} --prepare"
    try:
        note = read_json(bank.note(task, PREPARED), fix=fix)
        digest = stored_digest(bank.data(task))
    except (InputError, IntegrityError):  # not there, or damaged, which preparing mends
        return False
    return note.get("parameters") == data_inputs(bank, task) and note.get("digest") == digest


def backbone_is_ready(bank: Bank) -> bool:
    """Whether the backbone in place is the one the configuration names; weights are not hashed.

    The record names a local file without its path, so a file that is there is compared itself.
    """
    section, registry = bank.config.backbone, bank.registry
    try:
        record = registry.backbone()
    except FetchError:
        return False
    named = (neutral(section.uri), section.spec(record.spec.mean, record.spec.std))
    if not registry.backbone_weights.is_file() or named != (record.uri, record.spec):
        return False
    file = local_file(section.uri, bank.root)
    if file is None or not file.is_file():
        return True
    try:
        return (
            fingerprint(read_checkpoint(file), record.spec, *parse_arch(record.arch))
            == record.fingerprint
        )
    except (InputError, IntegrityError):  # fetching says what is wrong with it
        return False
