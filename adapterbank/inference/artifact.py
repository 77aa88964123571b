"""Between an adapter in memory and the files of a version."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from pydantic import ValidationError
from safetensors.numpy import save as save_arrays
from safetensors.torch import save as save_tensors

from adapterbank import catalog
from adapterbank.backbones.base import Backbone
from adapterbank.config.bank import describe
from adapterbank.errors import (
    BackboneMismatch,
    ConfigError,
    InputError,
    IntegrityError,
    UnknownName,
)
from adapterbank.inference.canary import check_canary, pack_canary
from adapterbank.methods.base import Adapter, Folded, Method, MethodConfig, count_parameters
from adapterbank.records import InputSpec, Traits
from adapterbank.registry.adapter_config import AdapterConfig, parse_adapter_config
from adapterbank.registry.card import render_card
from adapterbank.registry.checks import CANARY, read_model
from adapterbank.registry.documents import dump_document

METHODS = "adapterbank.methods"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_MODEL = "adapter_model.safetensors"
METRICS = "metrics.json"
ROUTING = "routing.safetensors"
CARD = "README.md"

# What the numbers of an adapter depend on; in the hashed configuration on purpose.
_LIBRARIES = ("torch", "torchvision", "timm", "pillow")


@dataclass(frozen=True, kw_only=True)
class LoadedAdapter:
    """An adapter ready to run, what its configuration says, and its digest."""

    folded: Folded
    config: AdapterConfig
    digest: str  # see adapter_digest
    parameters: tuple[int, int]  # of the method, of the head


def libraries() -> dict[str, str]:
    """Versions that an adapter's numbers depend on."""
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **versions}


def find_method(name: str) -> Method:
    """Find a method by its name.

    Raises:
        UnknownName: no such method; its neighbours are named.
    """
    return cast("Method", catalog.load(METHODS, name, kind="method"))


def method_config(name: str, hyper: Mapping[str, Any], *, where: str) -> MethodConfig:
    """Check a method's hyper-parameters.

    Raises:
        ConfigError: every problem, at once.
        UnknownName: no such method.
    """
    method = find_method(name)
    try:
        return method.Config.model_validate(dict(hyper))
    except ValidationError as error:
        raise ConfigError(where, describe(error, method.Config)) from error


def build_adapter(
    name: str, hyper: Mapping[str, Any], traits: Traits, classes: int, *, seed: int, where: str
) -> Adapter:
    """Make an adapter at its start; equal seeds give equal adapters."""
    config = method_config(name, hyper, where=where)
    generator = torch.Generator().manual_seed(seed)
    return find_method(name).build(config, traits, classes, generator)


def pack_adapter(adapter: Adapter) -> bytes:
    """Write an adapter's parameters as safetensors, float32."""
    state = adapter.state_dict()
    return save_tensors({name: t.detach().cpu().float().contiguous() for name, t in state.items()})


def adapter_digest(files: Mapping[str, bytes]) -> str:
    """Hash what decides the answers of an adapter: its configuration and its tensors.

    Unlike a version's digest it is known before the version has its figures.
    """
    parts = (hashlib.sha256(files[name]).digest() for name in (ADAPTER_CONFIG, ADAPTER_MODEL))
    return hashlib.sha256(b"".join(parts)).hexdigest()


def pack_trained(
    adapter: Adapter, config: AdapterConfig, backbone: Backbone, routing: Mapping[str, Any]
) -> dict[str, bytes]:
    """Make the files of a version that training decides: all but metrics, card and manifest.

    Args:
        adapter: trained.
        config: what ``adapter_config.json`` will say.
        backbone: the one it was trained on; it runs the canary.
        routing: see :func:`adapterbank.routing.record.task_record`.

    Returns:
        Bytes by file name.
    """
    with torch.no_grad():
        folded = adapter.fold()
    return {
        ADAPTER_MODEL: pack_adapter(adapter),
        ADAPTER_CONFIG: dump_document(asdict(config)),
        CANARY: pack_canary(backbone, folded),
        ROUTING: save_arrays(dict(routing)),
    }


def add_metrics(trained: Mapping[str, bytes], metrics: Mapping[str, Any]) -> dict[str, bytes]:
    """Complete the files of a version with its figures and its card.

    Args:
        trained: what :func:`pack_trained` made.
        metrics: figures with counts; nothing that differs between equal runs, such as times.

    Returns:
        Bytes by file name: all but the manifest, which the registry adds.
    """
    config = asdict(parse_adapter_config(trained[ADAPTER_CONFIG]))
    return {
        **trained,
        METRICS: dump_document(metrics),
        CARD: render_card(config, dict(metrics)).encode(),
    }


def restore_adapter(
    files: Mapping[str, bytes],
    config: AdapterConfig,
    spec: InputSpec,
    traits: Traits,
    *,
    where: str,
) -> Adapter:
    """Rebuild an adapter from the verified files of a version; its backbone need not be there.

    Raises:
        IntegrityError: the tensors or hyper-parameters are none that the named method can load.
    """
    tensors = read_model(files, config, spec, traits.width, where=where)
    try:
        adapter = build_adapter(
            config.method.name, config.method.hyper, traits, len(config.classes),
            seed=0, where=f"{where}/{ADAPTER_CONFIG}",
        )  # fmt: skip
    except (InputError, UnknownName) as error:  # no mistake of who asks for the version
        raise IntegrityError(f"{where}: {error.message}", fix=error.fix) from error
    try:
        adapter.load_state_dict({name: torch.from_numpy(t) for name, t in tensors.items()})
    except RuntimeError as error:
        differences = " ".join(str(error).split())
        raise IntegrityError(f"{where}/{ADAPTER_MODEL}: {differences}") from error
    return adapter


def load_adapter(
    files: Mapping[str, bytes], backbone: Backbone, *, where: str, canary: bool = True
) -> LoadedAdapter:
    """Rebuild an adapter from the verified files of a version and fold it.

    Args:
        files: content by file name, as the registry read it.
        backbone: loaded.
        where: the version, for messages.
        canary: replay the stored canary.

    Raises:
        BackboneMismatch: the adapter was trained on another backbone.
        CanaryMismatch: the canary answers differently than when it was published.
        IntegrityError: the tensors are not those of the configured method.
    """
    config = parse_adapter_config(files[ADAPTER_CONFIG], where=f"{where}/{ADAPTER_CONFIG}")
    if config.backbone.fingerprint != backbone.fingerprint:
        raise BackboneMismatch(
            f"{where} was trained on backbone {config.backbone.fingerprint[:12]}, loaded is"
            f" {backbone.fingerprint[:12]}: equal shapes prove nothing, the answers would be wrong",
            fix="adapterbank backbone show",
        )
    adapter = restore_adapter(files, config, backbone.spec, backbone.traits, where=where)
    folded = adapter.to(backbone.device).requires_grad_(requires_grad=False).fold()
    if canary and CANARY in files:
        check_canary(backbone, folded, files[CANARY], where=where)
    return LoadedAdapter(
        folded=folded,
        config=config,
        digest=adapter_digest(files),
        parameters=count_parameters(adapter),
    )
