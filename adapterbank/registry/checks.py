"""Whether the content of a version is sound: hashes prove that bytes are unchanged, not good."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from adapterbank.errors import BackboneMismatch, IntegrityError
from adapterbank.records import ROUTER, check_new_task
from adapterbank.registry.adapter_config import AdapterConfig, parse_adapter_config
from adapterbank.registry.backbone import BackboneRecord

Tensors = dict[str, np.ndarray]

# An adapter has a few dozen tensors of 100 bytes each in the header. The format allows 100 MB,
# which take half a minute and 2 GB to parse.
_HEADER_LIMIT = 1 << 20


def load_tensors(data: bytes, *, where: str) -> Tensors:
    """Read a safetensors file whose every number is finite.

    Raises:
        IntegrityError: the header lies about names, shapes or sizes, a kind of number is not one
            numpy has, or a value is NaN or infinite; names the tensor.
    """
    header = int.from_bytes(data[:8], "little")
    if header > _HEADER_LIMIT:
        raise IntegrityError(
            f"{where} is not a usable safetensors file: it claims a header of {header:,} bytes,"
            f" more than the {_HEADER_LIMIT:,} allowed"
        )
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        # KeyError: numbers numpy has no name for, bfloat16 and the 8-bit floats.
        raise IntegrityError(f"{where} is not a usable safetensors file: {error}") from error
    for name, tensor in sorted(tensors.items()):
        if tensor.dtype.kind in "fc" and not np.isfinite(tensor).all():
            count = int(tensor.size - np.isfinite(tensor).sum())
            raise IntegrityError(f"{where}: tensor {name!r} holds {count:,} NaN or infinite values")
    return tensors


def _check_adapter(
    task: str, files: Mapping[str, bytes], backbone: BackboneRecord, where: str
) -> None:
    stated = f"{where}/adapter_config.json"
    config = parse_adapter_config(files["adapter_config.json"], where=stated)
    _check_config(task, config, backbone, where=stated)
    model = f"{where}/adapter_model.safetensors"
    tensors = load_tensors(files["adapter_model.safetensors"], where=model)
    _check_model(tensors, len(config.classes), backbone.traits.width, where=model)
    for name in ("routing.safetensors", "canary.safetensors"):
        if name in files:
            load_tensors(files[name], where=f"{where}/{name}")
    if "metrics.json" in files:
        _json_object(files["metrics.json"], where=f"{where}/metrics.json")
    try:
        files.get("README.md", b"").decode()
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{where}/README.md is not UTF-8 text: {error}") from error


def check_sound(
    task: str, files: Mapping[str, bytes], backbone: BackboneRecord, *, where: str
) -> None:
    """Check that ``files`` make a usable version of a task, or of the router.

    Raises:
        BackboneMismatch: it is of another backbone.
        InputError: no version may have that name.
        IntegrityError: anything else is wrong; names the file.
    """
    if task != ROUTER:
        check_new_task(task)
        _check_adapter(task, files, backbone, where)
        return
    load_tensors(files["router.safetensors"], where=f"{where}/router.safetensors")
    config = _json_object(files["router.json"], where=f"{where}/router.json")
    if config.get("backbone") != backbone.fingerprint:
        raise BackboneMismatch(
            f"{where} is of backbone {str(config.get('backbone'))[:12]}; this registry has"
            f" {backbone.fingerprint[:12]}",
            fix="adapterbank router rebuild",
        )


def _check_config(
    task: str, config: AdapterConfig, backbone: BackboneRecord, *, where: str
) -> None:
    if config.task != task:
        raise IntegrityError(f"{where} is for task {config.task!r}, expected {task!r}")
    if config.backbone.fingerprint != backbone.fingerprint:
        raise BackboneMismatch(
            f"{where} was trained on backbone {config.backbone.fingerprint[:12]}"
            f" ({config.backbone.uri}); this registry has {backbone.fingerprint[:12]}"
            f" ({backbone.uri}). Equal shapes prove nothing: the answers would be wrong",
            fix="adapterbank backbone show",
        )
    if config.input != backbone.spec:
        raise IntegrityError(f"{where} has input {config.input}; this registry has {backbone.spec}")
    repeated = len(config.classes) - len(set(config.classes))
    if repeated:
        raise IntegrityError(f"{where} repeats {repeated} class names")


def _check_model(tensors: Tensors, classes: int, width: int, *, where: str) -> None:
    for name, tensor in sorted(tensors.items()):
        if tensor.dtype != np.float32:
            raise IntegrityError(f"{where}: tensor {name!r} is {tensor.dtype}, expected float32")
    # (C, D) and (C,): classes as the configuration names them, width as the backbone has it.
    for name, expected in (("head.weight", (classes, width)), ("head.bias", (classes,))):
        if name not in tensors:
            raise IntegrityError(f"{where} lacks {name!r}")
        shape = tensors[name].shape
        if shape != expected:
            raise IntegrityError(f"{where}: {name!r} has shape {shape}, expected {expected}")


def _json_object(data: bytes, *, where: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a number JSON has")

    try:
        content = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{where} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise IntegrityError(f"{where} holds a {type(content).__name__}, expected an object")
    return content
