"""A header that lies, numbers that are none, files beyond their limit: refused by name."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from adapterbank.backbones.loading import load as load_backbone
from adapterbank.backbones.loading import read_weights
from adapterbank.errors import IntegrityError
from adapterbank.inference.artifact import load_adapter
from adapterbank.inference.canary import check_canary
from adapterbank.reading import read_tensors
from adapterbank.registry.manifest import FILE_LIMITS, MANIFEST
from tests import served
from tests.registry_samples import files_of, new_registry

TENSORS = ("adapter_model.safetensors", "canary.safetensors", "routing.safetensors")


def lie(header: object, data: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape: list[Any], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


LIES: dict[str, bytes] = {
    "nothing": b"",
    "seven": b"\0" * 7,
    "no-header": struct.pack("<Q", 0),
    "beyond": struct.pack("<Q", 100) + b"{}",
    "all-ones": b"\xff" * 64,
    "list": lie(b"[]"),
    "null": lie(b"null"),
    "letters": lie(b'{"\xff": 1}'),
    "deep": lie(b"[" * 100_000),
    "deeper": lie(b'{"a":' * 100_000),
    "overlap": lie({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, b"\0" * 12),
    "same-bytes": lie({"a": tensor([2], 0, 8), "b": tensor([2], 0, 8)}, b"\0" * 8),
    "gap": lie({"a": tensor([2], 4, 12)}, b"\0" * 12),
    "backwards": lie({"a": tensor([2], 8, 0)}, b"\0" * 8),
    "past-the-end": lie({"a": tensor([4], 0, 16)}, b"\0" * 8),
    "left-over": lie({"a": tensor([1], 0, 4)}, b"\0" * 8),
    "negative-shape": lie({"a": tensor([-2], 0, 8)}, b"\0" * 8),
    "negative-offset": lie({"a": tensor([2], -8, 0)}, b"\0" * 8),
    "far-offset": lie({"a": tensor([2], (1 << 64) - 8, (1 << 64) - 1)}, b"\0" * 8),
    "overflow": lie({"a": tensor([1 << 40, 1 << 40], 0, 8)}, b"\0" * 8),
    "wraps-to-two": lie({"a": tensor([1 << 63, 2, 2], 0, 8)}, b"\0" * 8),
    "none-of-too-many": lie({"a": tensor([0, 1 << 63], 0, 0)}),
    "number": lie({"a": tensor([10**30], 0, 8)}, b"\0" * 8),
    "fraction": lie({"a": tensor([1.5], 0, 6)}, b"\0" * 6),
    "kind": lie({"a": tensor([2], 0, 8, "X32")}, b"\0" * 8),
    "half-bytes": lie({"a": tensor([1], 0, 1, "F4")}, b"\0"),
    "metadata": lie({"__metadata__": {"x": 3}, "a": tensor([2], 0, 8)}, b"\0" * 8),
    "without-offsets": lie({"a": {"dtype": "F32", "shape": [2]}}, b"\0" * 8),
}
lies = pytest.mark.parametrize("data", LIES.values(), ids=LIES)


@lies
@pytest.mark.parametrize("name", TENSORS)
def test_a_version_with_a_lying_header_is_never_registered(
    tmp_path: Path, name: str, data: bytes
) -> None:
    registry = new_registry(tmp_path)
    registry.register("eurosat", files_of("eurosat"))
    with pytest.raises(IntegrityError, match=f"{name} is not a usable safetensors file") as caught:
        registry.register("dtd", {**files_of("dtd"), name: data})
    assert caught.value.exit_code == 4
    assert len(caught.value.message) < 1000
    assert registry.tasks() == ("eurosat",)
    assert registry.verify() == ()


@lies
def test_weights_of_a_backbone_with_a_lying_header_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"model\.safetensors") as caught:
        read_weights(path)
    assert caught.value.fix == "adapterbank backbone fetch --force"


@pytest.mark.parametrize("kind", ["I32", "F8_E4M3", "BF16", "BOOL", "C64", "F64", "F16", "U16"])
def test_weights_of_another_kind_of_number_are_not_the_backbone(tmp_path: Path, kind: str) -> None:
    registry = served.new_registry(tmp_path)
    record, path = registry.backbone(), registry.backbone_weights
    size = {"I32": 4, "F64": 8, "C64": 8, "F8_E4M3": 1, "BOOL": 1}.get(kind, 2)
    path.write_bytes(lie({"cls_token": tensor([1], 0, size, kind)}, b"\1" * size))
    with pytest.raises(IntegrityError, match="fingerprint"):
        load_backbone(path, record.spec, arch=record.arch, expected=record.fingerprint)


@lies
def test_files_that_came_past_the_registry_are_refused_when_they_are_loaded(data: bytes) -> None:
    made = served.adapter()
    files = served.pack(made, served.describe("bugs", made))
    with pytest.raises(IntegrityError, match="bugs@1"):
        load_adapter(
            {**files, "adapter_model.safetensors": data}, served.backbone(), where="bugs@1"
        )
    folded = made.requires_grad_(requires_grad=False).fold()
    with pytest.raises(IntegrityError, match=r"bugs@1/canary\.safetensors is not a usable"):
        check_canary(served.backbone(), folded, data, where="bugs@1")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", TENSORS)
def test_a_number_that_is_none_is_refused_in_every_file(
    tmp_path: Path, name: str, value: float
) -> None:
    registry = served.new_registry(tmp_path)
    made = served.adapter()
    files = served.pack(made, served.describe("bugs", made))
    tensors = dict(load(files[name]))
    target = next(key for key, array in sorted(tensors.items()) if array.dtype.kind == "f")
    tensors[target] = tensors[target].copy()
    tensors[target].reshape(-1)[-1] = value
    with pytest.raises(IntegrityError, match=f"{name}: tensor '{target}' holds 1 NaN"):
        registry.register("bugs", {**files, name: save(tensors)})
    assert registry.tasks() == ()


def test_a_canary_of_numbers_that_are_none_refuses_every_answer() -> None:
    folded = served.adapter().requires_grad_(requires_grad=False).fold()
    for value in (np.nan, np.inf, -np.inf, 1e30):
        packed = save({"logits": np.full((2, 4), value, dtype=np.float32)})
        with pytest.raises(IntegrityError, match="bugs@1"):
            check_canary(served.backbone(), folded, packed, where="bugs@1")


def test_a_huge_header_is_refused_before_it_is_parsed() -> None:
    entry = b'"t%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = b"{" + b",".join(entry % number for number in range(50_000)) + b"}"
    begun = time.perf_counter()
    with pytest.raises(IntegrityError, match=r"x is not a usable .* a header of 3,") as caught:
        read_tensors(lie(header), "x")
    assert time.perf_counter() - begun < 0.1  # parsing so many takes a second, 1.5 million 30
    assert "1,048,576 allowed" in caught.value.message


@pytest.mark.parametrize("name", ["README.md", "metrics.json"])
def test_a_file_too_large_to_be_read_back_is_never_written(tmp_path: Path, name: str) -> None:
    registry = new_registry(tmp_path)
    fill = {"README.md": b"a", "metrics.json": b" "}[name]
    files = files_of("dtd")
    fits = files[name] + fill * (FILE_LIMITS[name] - len(files[name]))
    with pytest.raises(
        IntegrityError, match=f"{name} .*16,777,217 bytes, more than the 16,777,216"
    ):
        registry.register("dtd", {**files, name: fits + fill})
    assert registry.tasks() == ()
    version = registry.register("dtd", {**files, name: fits})
    assert set(registry.read(version)) == {*files, MANIFEST}
    assert registry.verify() == ()
