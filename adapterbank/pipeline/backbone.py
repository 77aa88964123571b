"""The ``backbone`` stage: the bank's frozen weights, verified, and what they are."""

from __future__ import annotations

from safetensors.torch import save

from adapterbank.backbones.loading import load
from adapterbank.backbones.sources import fetch
from adapterbank.bank.bank import Bank
from adapterbank.bank.ready import backbone_is_ready
from adapterbank.errors import FetchError, IntegrityError
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.publish import save_weights


def fetch_backbone(bank: Bank, *, force: bool = False) -> BackboneRecord:
    """Put the bank's backbone in place, and say in the registry what it is.

    Args:
        bank: an open bank.
        force: fetch again although the weights are there and right.

    Raises:
        AdapterBankError: the disk is full or read-only.
        ConflictError: the registry has versions of another backbone.
        FetchError: it could not be downloaded.
    """
    registry, section = bank.registry, bank.config.backbone
    weights = registry.backbone_weights
    if weights.exists() and not force and _is_fetched(bank):
        return registry.backbone()
    source = fetch(section.uri, root=bank.root)
    spec = section.spec(source.mean, source.std)
    backbone = load(source, spec)
    record = BackboneRecord(
        uri=source.uri,
        arch=source.arch,
        spec=spec,
        fingerprint=backbone.fingerprint,
        traits=backbone.traits,
    )
    registry.set_backbone(record)  # refuses before any weights are replaced
    state = {name: tensor.contiguous() for name, tensor in source.state.items()}
    save_weights(registry.root, save(state))
    return record


def _is_fetched(bank: Bank) -> bool:
    """Whether the weights in place are what the configuration asks for."""
    try:
        record = bank.registry.backbone()
        load(bank.registry.backbone_weights, record.spec, arch=record.arch,
             expected=record.fingerprint)  # fmt: skip
    except (FetchError, IntegrityError):
        return False
    return backbone_is_ready(bank)
