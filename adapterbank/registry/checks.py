"""Whether the content of a version is sound: hashes prove that bytes are unchanged, not good."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from adapterbank.errors import BackboneMismatch, IntegrityError
from adapterbank.reading import Tensors, read_object, read_tensors
from adapterbank.records import ROUTER, InputSpec, check_new_task
from adapterbank.registry.adapter_config import AdapterConfig, parse_adapter_config
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.metrics import read_metrics
from adapterbank.registry.seen import SEEN, parse_seen

CANARY = "canary.safetensors"
_MODEL = "adapter_model.safetensors"


def read_model(
    files: Mapping[str, bytes], config: AdapterConfig, spec: InputSpec, width: int, *, where: str
) -> Tensors:
    """Read the tensors that answer images, and check that they fit to what is said of them.

    Args:
        files: content by file name.
        config: what ``adapter_config.json`` says.
        spec: the backbone's input.
        width: the backbone's.
        where: what errors call the files.

    Raises:
        IntegrityError: they are damaged, or of another input, width or number of classes.
    """
    stated, model = f"{where}/adapter_config.json", f"{where}/{_MODEL}"
    if config.input != spec:
        raise IntegrityError(f"{stated} has input {config.input}; this registry has {spec}")
    repeated = len(config.classes) - len(set(config.classes))
    if repeated:
        raise IntegrityError(f"{stated} repeats {repeated} class names")
    tensors = read_tensors(files[_MODEL], model)
    _check_model(tensors, len(config.classes), width, where=model)
    return tensors


def read_canary(data: bytes, classes: int, *, where: str) -> np.ndarray:
    """Read the logits (images, C) that a version gave of its canary.

    Raises:
        IntegrityError: it holds no such logits, float32 and finite.
    """
    tensors = read_tensors(data, where)
    logits = tensors.get("logits", np.empty(0))
    if set(tensors) != {"logits"} or logits.dtype != np.float32 or logits.shape[1:] != (classes,):
        held = ", ".join(f"{name} {t.dtype} {t.shape}" for name, t in sorted(tensors.items())[:5])
        raise IntegrityError(
            f"{where}: the canary holds no logits, expected float32 of {classes} classes,"
            f" got {held or 'nothing'}"
        )
    return logits


def _check_adapter(
    task: str, files: Mapping[str, bytes], backbone: BackboneRecord, where: str
) -> None:
    stated = f"{where}/adapter_config.json"
    config = parse_adapter_config(files["adapter_config.json"], where=stated)
    _check_origin(task, config, backbone, where=stated)
    read_model(files, config, backbone.spec, backbone.traits.width, where=where)
    if "routing.safetensors" in files:
        read_tensors(files["routing.safetensors"], f"{where}/routing.safetensors")
    if CANARY in files:
        read_canary(files[CANARY], len(config.classes), where=f"{where}/{CANARY}")
    if SEEN in files:
        parse_seen(files[SEEN], where=f"{where}/{SEEN}")
    if "metrics.json" in files:
        read_metrics(files["metrics.json"], where=f"{where}/metrics.json")
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
    read_tensors(files["router.safetensors"], f"{where}/router.safetensors")
    config = read_object(files["router.json"], f"{where}/router.json")
    if config.get("backbone") != backbone.fingerprint:
        raise BackboneMismatch(
            f"{where} is of backbone {str(config.get('backbone'))[:12]}; this registry has"
            f" {backbone.fingerprint[:12]}",
            fix="adapterbank router rebuild",
        )


def check_proof(files: Mapping[str, bytes], *, where: str) -> None:
    """Check that a version has what can prove, at any later time, that its answers are the same.

    Versions that were published without stay what they are.

    Raises:
        IntegrityError: it has no canary.
    """
    if CANARY not in files:
        raise IntegrityError(
            f"{where} has no {CANARY}: nothing could prove that it gives its answers",
            fix="adapterbank evaluate TASK --trained, which writes a whole version",
        )


def _check_origin(
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
