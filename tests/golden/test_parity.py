"""Exact parity with the published implementation, folded and as drawn."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks import parity

HERE = Path(__file__).parent
OWN = sorted(HERE.glob("*.safetensors"))
MORE = HERE.parents[2] / "shared" / "golden"  # more of the same, where somebody has them

each_form = pytest.mark.parametrize("folded", [False, True], ids=["drawn", "folded"])


def beyond_tolerance(path: Path, *, folded: bool) -> list[str]:
    ours, expected = parity.run(path, folded=folded)
    assert ours.keys() == expected.keys()
    return [name for name in ours if not parity.within(name, ours[name], expected[name])]


@each_form
@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_logits_loss_and_gradients_equal_the_published_ones(path: Path, folded: bool) -> None:
    assert beyond_tolerance(path, folded=folded) == []


@each_form
def test_every_further_vector_is_equal_too(folded: bool) -> None:
    paths = sorted(MORE.glob("*.safetensors"))
    if not paths:
        pytest.skip("no further vectors beside this checkout")
    assert {path.stem: beyond_tolerance(path, folded=folded) for path in paths} == {
        path.stem: [] for path in paths
    }


def test_the_vectors_are_the_ones_whose_provenance_is_told() -> None:
    told = (HERE / "PROVENANCE.md").read_text(encoding="utf-8")
    assert OWN
    assert dict(re.findall(r"^\| `(.+?)` .*`([0-9a-f]{64})` \|$", told, re.MULTILINE)) == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in OWN
    }


def test_the_command_writes_our_values_and_exits_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.safetensors"
    monkeypatch.setattr(sys, "argv", ["parity", str(OWN[0]), "--folded", "--out", str(out)])
    assert parity.main() == 0
    expected = {n for n in load_file(OWN[0]) if n.startswith(("output.", "grad."))}
    assert load_file(out).keys() == expected


@pytest.mark.parametrize("name", ["output.logits", "output.loss", "grad.head.weight"])
def test_the_command_exits_1_when_one_tensor_is_beyond_tolerance(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with safe_open(OWN[0], framework="pt") as file:
        meta = file.metadata()
    tensors = load_file(OWN[0])
    found = next(key for key in tensors if key.endswith(name.removeprefix("grad.")) and
                 key.startswith(name.partition(".")[0]))  # fmt: skip
    tensors[found] = tensors[found] + 1e-3 * tensors[found].abs().max()
    save_file(tensors, tmp_path / "changed.safetensors", meta)
    arguments = [str(tmp_path / "changed.safetensors"), "--out", str(tmp_path / "out.safetensors")]
    monkeypatch.setattr(sys, "argv", ["parity", *arguments])
    assert parity.main() == 1
    assert torch.is_tensor(load_file(tmp_path / "out.safetensors")["output.logits"])
