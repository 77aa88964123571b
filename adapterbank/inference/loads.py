"""Whether a version can be loaded, asked without its backbone."""

from __future__ import annotations

from collections.abc import Mapping

from adapterbank.inference.artifact import ADAPTER_CONFIG, restore_adapter
from adapterbank.records import ROUTER
from adapterbank.registry.adapter_config import parse_adapter_config
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.routing.storage import unpack_router


def check_loads(
    task: str, files: Mapping[str, bytes], record: BackboneRecord, *, where: str
) -> None:
    """Check that a version of a task, or of the router, can be loaded; nothing is answered.

    Raises:
        IntegrityError: it cannot.
    """
    if task == ROUTER:
        unpack_router(files, where=where)
        return
    config = parse_adapter_config(files[ADAPTER_CONFIG], where=f"{where}/{ADAPTER_CONFIG}")
    restore_adapter(files, config, record.spec, record.traits, where=where)
