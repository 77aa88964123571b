"""Content that no adapter can have is refused with the file's name, before anything is written."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from adapterbank.errors import BackboneMismatch, IntegrityError
from adapterbank.reading import read_tensors
from adapterbank.registry.adapter_config import parse_adapter_config
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.checks import check_sound
from tests.registry_samples import BACKBONE, WIDTH, config_of, files_of, tensors_of


def _check(files: dict[str, bytes], task: str = "dtd") -> None:
    check_sound(task, files, BACKBONE, where="new")


def _with_header(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_sound_files_give_their_configuration() -> None:
    files = files_of("dtd")
    _check(files)
    config = parse_adapter_config(files["adapter_config.json"])
    assert config.classes == ("cat", "dog", "öre")
    assert config.input == BACKBONE.spec
    assert config.method.hyper["rank"] == 8


def test_another_backbone_of_equal_shape_is_refused() -> None:
    config = config_of("dtd")
    config["backbone"]["fingerprint"] = "ef" * 32
    with pytest.raises(
        BackboneMismatch, match=rf"efefefefefef .* this registry has {BACKBONE.fingerprint[:12]}"
    ):
        _check(files_of("dtd", config=config))


def test_the_files_of_another_task_are_refused() -> None:
    with pytest.raises(IntegrityError, match="for task 'dtd', expected 'eurosat'"):
        _check(files_of("dtd"), task="eurosat")


@pytest.mark.parametrize("key", sorted(config_of("dtd")))
def test_every_key_of_the_configuration_is_required(key: str) -> None:
    config = config_of("dtd")
    del config[key]
    with pytest.raises(IntegrityError, match=rf"adapter_config\.json is not valid: {key}"):
        _check(files_of("dtd", config=config))


def _set(*path: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        place: Any = config
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set("schema", to=2), "has schema 2"),
        (_set("more", to=1), "more"),
        (_set("seed", to="0"), "seed"),
        (_set("classes", to=[]), "classes"),
        (_set("classes", to=["a", "a", "b"]), "repeats 1"),
        (_set("classes", 0, to=""), "classes.0"),
        (_set("classes", to=["a", "b"]), "head.*expected"),
        (_set("input", "size", to=[32]), "input.size"),
        (_set("input", "size", to=[48, 32]), "has input"),
        (_set("input", "crop", to=1), "input.crop"),
        (_set("backbone", "fingerprint", to="../x"), "backbone.fingerprint"),
        (_set("method", to="vapt"), "method"),
    ],
)
def test_a_wrong_value_in_the_configuration_is_named(
    change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    config = config_of("dtd")
    change(config)
    with pytest.raises(IntegrityError, match=reason):
        _check(files_of("dtd", config=config))


def test_all_problems_of_a_configuration_are_reported_at_once() -> None:
    config = {**config_of("dtd"), "seed": "0", "train": 3}
    with pytest.raises(IntegrityError, match=r"(?s)train.*seed"):
        _check(files_of("dtd", config=config))


def test_more_classes_than_anyone_has_are_refused() -> None:
    config = config_of("dtd", tuple(map(str, range(100_001))))
    with pytest.raises(IntegrityError, match=r"classes.*100000"):
        _check(files_of("dtd", config=config))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 1 << 62) + b"{}",
        _with_header({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}, b"\0" * 8),
        _with_header({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 4),
        _with_header({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 12),
        _with_header(
            {"x": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 8]}}, b"\0" * 8
        ),
        _with_header({"x": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}, b"\0" * 8),
        save({"x": np.zeros(8, dtype=np.float32)})[:-1],
    ],
    ids=["empty", "ones", "long", "size", "short", "trailing", "overflow", "dtype", "truncated"],
)
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "routing.safetensors"])
def test_a_lying_safetensors_header_is_refused(name: str, data: bytes) -> None:
    with pytest.raises(IntegrityError, match=f"new/{name} is not a usable safetensors file"):
        _check({**files_of("dtd"), name: data})


def test_a_list_of_images_that_is_none_is_refused() -> None:
    with pytest.raises(IntegrityError, match=r"new/seen_images\.bin is no ascending list"):
        _check({**files_of("dtd"), "seen_images.bin": b"some image"})
    _check({**files_of("dtd"), "seen_images.bin": b"one digest of 16"})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_refused_with_its_tensor(value: float) -> None:
    tensors = tensors_of()
    tensors["head.weight"][1, 2] = value
    with pytest.raises(IntegrityError, match=r"'head\.weight' holds 1 NaN or infinite"):
        _check(files_of("dtd", tensors=tensors))


@pytest.mark.parametrize(
    ("name", "tensor", "reason"),
    [
        ("head.weight", np.zeros((3, WIDTH + 1), dtype=np.float32), r"expected \(3, 8\)"),
        ("head.weight", np.zeros((WIDTH, 3), dtype=np.float32), r"expected \(3, 8\)"),
        ("head.bias", np.zeros(4, dtype=np.float32), r"expected \(3,\)"),
        ("head.bias", np.zeros((3, 1), dtype=np.float32), r"expected \(3,\)"),
        ("more", np.zeros(2, dtype=np.float64), "float64, expected float32"),
    ],
)
def test_a_tensor_of_another_shape_or_kind_is_refused(
    name: str, tensor: np.ndarray, reason: str
) -> None:
    with pytest.raises(IntegrityError, match=reason):
        _check(files_of("dtd", tensors={**tensors_of(), name: tensor}))


@pytest.mark.parametrize("name", ["head.weight", "head.bias"])
def test_an_adapter_without_a_head_is_refused(name: str) -> None:
    tensors = tensors_of()
    del tensors[name]
    with pytest.raises(IntegrityError, match=f"lacks '{name}'"):
        _check(files_of("dtd", tensors=tensors))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("metrics.json", b"{"),
        ("metrics.json", b"[]"),
        ("metrics.json", b'{"x": NaN}'),
        ("metrics.json", b"[" * 100_000),
        ("README.md", b"\xff\xfe"),
    ],
    ids=["broken", "list", "nan", "deep", "text"],
)
def test_other_files_are_checked_too(name: str, data: bytes) -> None:
    with pytest.raises(IntegrityError, match=f"new/{name}"):
        _check({**files_of("dtd"), name: data})


def test_tensors_of_other_kinds_of_numbers_are_read() -> None:
    tensors = {"n": np.array([3], dtype=np.int64), "m": np.ones((2, 2))}
    read = read_tensors(save(tensors), "x")
    assert {name: read[name].tolist() for name in read} == {"n": [3], "m": [[1, 1], [1, 1]]}


def test_a_backbone_record_survives_its_file() -> None:
    data = BACKBONE.to_json()
    assert BackboneRecord.from_json(data) == BACKBONE
    assert BackboneRecord.from_json(data).to_json() == data
    assert replace(BACKBONE, uri="x").to_json() != data


@pytest.mark.parametrize(
    ("old", "new"),
    [('"schema": 1', '"schema": 7'), ('"width": 8', '"width": "8"'), ('"uri"', '"url"')],
)
def test_a_backbone_record_of_another_shape_is_refused(old: str, new: str) -> None:
    text = BACKBONE.to_json().decode()
    assert old in text
    with pytest.raises(IntegrityError, match=r"backbone\.json"):
        BackboneRecord.from_json(text.replace(old, new).encode())
