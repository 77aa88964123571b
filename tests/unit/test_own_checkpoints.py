"""Checkpoints of one's own: each is the backbone it holds, or is told what to do with it."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from adapterbank.backbones.loading import Source, load
from adapterbank.backbones.sources import fetch
from adapterbank.bank.bank import Bank
from adapterbank.bank.ready import backbone_is_ready
from adapterbank.errors import AdapterBankError, InputError, IntegrityError
from adapterbank.pipeline.backbone import fetch_backbone
from adapterbank.records import InputSpec
from tests.cli_samples import PARAMS

State = dict[str, Tensor]
QUERY = "arch=vit_tiny_patch16_224&depth=2&embed_dim=32&num_heads=2"
DRAWN = "random://vit_tiny_patch16_224?seed=0&depth=2&embed_dim=32&num_heads=2"
SPEC = InputSpec(size=(64, 64))


def state() -> State:
    return dict(fetch(DRAWN).state)


def read(path: Path, content: State, query: str = QUERY) -> Source:
    save_file({name: tensor.clone() for name, tensor in content.items()}, path)
    return fetch(f"file://{path}?{query}")


def prefixed(content: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in content.items()}


def with_tensor(content: State, name: str, change: Callable[[Tensor], Tensor]) -> State:
    return {**content, name: change(content[name])}


HEAD = {"head.weight": torch.zeros(1000, 32), "head.bias": torch.zeros(1000)}
SAME: dict[str, Callable[[State], State]] = {
    "plain": lambda s: s,
    "head": lambda s: s | HEAD,
    "module": lambda s: prefixed(s | HEAD, "module."),
    "nested": lambda s: prefixed(s, "module.backbone.") | {"module.head.weight": torch.zeros(2)},
    "compiled": lambda s: prefixed(s, "_orig_mod."),
    "masked": lambda s: s | {"mask_token": torch.zeros(1, 32), "decoder_embed.bias": torch.ones(2)},
    "float64": lambda s: {name: tensor.double() for name, tensor in s.items()},
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_stands_beside_or_around_a_backbone_changes_nothing(
    tmp_path: Path, change: Callable[[State], State]
) -> None:
    source = read(tmp_path / "vit.safetensors", change(state()))
    own = load(Source(uri=source.uri, arch=source.arch, state=state()), SPEC)
    assert load(source, SPEC).fingerprint == own.fingerprint


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_with_in_full(tmp_path: Path, kind: torch.dtype) -> None:
    halved = {name: tensor.to(kind) for name, tensor in state().items()}
    model = load(read(tmp_path / "vit.safetensors", halved), SPEC)
    tokens = model.block(0, model.embed(torch.zeros(1, 3, 64, 64)))
    assert tokens.dtype == torch.float32


def grid(height: int, width: int) -> Callable[[State], State]:
    return lambda s: s | {"pos_embed": torch.zeros(1, 1 + height * width, 32)}


@pytest.mark.parametrize("size", [(16 * 3, 16 * 5), (16 * 5, 16 * 3)], ids=str)
def test_positions_of_the_very_grid_are_taken_as_they_are(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    content = grid(3, 5)(state())
    content["pos_embed"] = torch.randn(content["pos_embed"].shape)
    model = load(read(tmp_path / "vit.safetensors", content), InputSpec(size=size))
    kept = dict(model.vit.named_parameters())["pos_embed"]
    assert torch.equal(kept, content["pos_embed"])


PATCH = "patch_embed.proj.weight"
REFUSED: dict[str, tuple[Callable[[State], State], str, str]] = {
    "non-square": (grid(3, 5), "15 places .* make no square", "backbone.size"),
    "one-position": (lambda s: s | {"pos_embed": torch.zeros(1, 1, 32)}, "0 places", "resample"),
    "flat-positions": (lambda s: s | {"pos_embed": torch.zeros(197 * 32)}, "make no", "resample"),
    "one-channel": (
        lambda s: with_tensor(s, PATCH, lambda t: t.mean(1, keepdim=True)),
        "takes images of 1 channels",
        r"expand\(-1, 3, -1, -1\) / 3",
    ),
    "nan": (
        lambda s: with_tensor(s, "norm.bias", lambda t: torch.full_like(t, float("nan"))),
        "norm.bias holds 32 NaN",
        "before its training diverged",
    ),
    "half-infinite": (
        lambda s: with_tensor(s, PATCH, lambda t: torch.full_like(t, torch.inf).half()),
        "NaN or infinite",
        "diverged",
    ),
    "whole-numbers": (
        lambda s: with_tensor(s, PATCH, lambda t: t.to(torch.int8)), "int8 numbers", "float32",
    ),
    "nothing": (lambda _: {}, "has 0 tensors called patch_embed", "name the tensors as timm does"),
    "other-names": (
        lambda _: {"embeddings.cls_token": torch.zeros(1)}, "has 0 tensors", "as timm does",
    ),
    "two-networks": (
        lambda s: prefixed(s, "student.") | prefixed(s, "teacher."),
        "has 2 tensors .*student., teacher.",
        "of one network",
    ),
    "other-depth": (
        lambda s: {n: t for n, t in s.items() if "blocks.1." not in n}, "missing blocks", "arch",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message", "fix"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_told_in_a_sentence_that_helps(
    tmp_path: Path, change: Callable[[State], State], message: str, fix: str
) -> None:
    with pytest.raises((InputError, IntegrityError), match=message) as caught:
        load(read(tmp_path / "vit.safetensors", change(state())), SPEC)
    assert re.search(fix, caught.value.fix or "")


@pytest.mark.parametrize("channels", [1, 4])
def test_an_architecture_of_other_channels_is_refused_at_once(
    tmp_path: Path, channels: int
) -> None:
    with pytest.raises(AdapterBankError, match=f"in_chans={channels}"):
        load(read(tmp_path / "v.safetensors", state(), f"{QUERY}&in_chans={channels}"), SPEC)


def test_a_pickled_checkpoint_is_not_read_and_the_command_that_is_told_converts_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "it's a vit.pth"
    content = prefixed(state(), "module.")
    torch.save({"state_dict": content, "epoch": 3}, path)  # noqa: TID251  # as others do
    with pytest.raises(InputError, match="pickled checkpoint") as caught:
        fetch(f"file://{path}?{QUERY}")
    command = (caught.value.fix or "").removesuffix(", then name the second file")
    subprocess.run(shlex.split(command), check=True)
    source = fetch(f"file://{path.with_suffix('.safetensors')}?{QUERY}")
    own = load(Source(uri="x", arch=source.arch, state=state()), SPEC)
    assert load(source, SPEC).fingerprint == own.fingerprint


def test_a_bank_is_ready_with_a_checkpoint_that_had_to_be_mended(tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    save_file(prefixed(state() | HEAD, "module."), path)
    params = tmp_path / "bank" / "pipelines" / "params.yaml"
    params.parent.mkdir(parents=True)
    params.write_text(re.sub(r'uri: ".*"', f'uri: "file://{path}?{QUERY}"', PARAMS))
    bank = Bank.open(tmp_path / "bank")
    fetch_backbone(bank)
    assert backbone_is_ready(bank)
