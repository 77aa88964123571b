"""Publishing by hand: only what would be answered with becomes a version."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save
from safetensors.torch import save as save_state

from adapterbank.bank.bank import Bank
from adapterbank.config.bank import parse_config
from adapterbank.errors import AdapterBankError, InputError, IntegrityError
from adapterbank.inference.artifact import load_adapter
from adapterbank.release import moves
from tests import served
from tests.cli_samples import PARAMS

Files = dict[str, bytes]


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """Return a bank without a version."""
    registry = served.new_registry(tmp_path / "registry")
    return Bank(root=tmp_path, config=parse_config(PARAMS, where="it"), registry=registry)


def folder(bank: Bank, change: Callable[[Files], object] = lambda _: None) -> Path:
    """Write the files of a sound version, changed."""
    made = served.adapter()
    files = served.pack(made, served.describe("bugs", made))
    change(files)
    directory = bank.root / "made"
    directory.mkdir()
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory


def with_hyper(files: Files, **hyper: object) -> None:
    config = json.loads(files["adapter_config.json"])
    config["method"]["hyper"] |= hyper
    files["adapter_config.json"] = json.dumps(config).encode()


def with_method(files: Files, name: str) -> None:
    config = json.loads(files["adapter_config.json"])
    config["method"] = {"name": name, "hyper": {}}
    files["adapter_config.json"] = json.dumps(config).encode()


def with_tensor(files: Files, file: str, name: str, tensor: np.ndarray | None) -> None:
    tensors = dict(load(files[file]))
    tensors.pop(name)
    files[file] = save(tensors if tensor is None else {**tensors, name: tensor})


MODEL, CANARY = "adapter_model.safetensors", "canary.safetensors"
HOSTILE: dict[str, Callable[[Files], object]] = {
    "no-canary": lambda files: files.pop(CANARY),
    "no-configuration": lambda files: files.pop("adapter_config.json"),
    "another-canary": lambda files: with_tensor(files, CANARY, "logits", np.ones((2, 4), "f4")),
    "one-image": lambda files: with_tensor(files, CANARY, "logits", np.ones((1, 4), "f4")),
    "no-image": lambda files: with_tensor(files, CANARY, "logits", np.ones((0, 4), "f4")),
    "no-logits": lambda files: with_tensor(files, CANARY, "logits", None),
    "whole-logits": lambda files: with_tensor(files, CANARY, "logits", np.ones((2, 4), "i8")),
    "unknown-method": lambda files: with_method(files, "magic"),
    "another-method": lambda files: with_method(files, "vpt_deep"),
    "unknown-hyper": lambda files: with_hyper(files, magic=1),
    "other-hyper": lambda files: with_hyper(files, prompts=3),
    "impossible-hyper": lambda files: with_hyper(files, kernel=64),
    "words": lambda files: with_hyper(files, prompts="many"),
    "lacking-tensor": lambda files: with_tensor(files, MODEL, "first", None),
    "other-shape": lambda files: with_tensor(files, MODEL, "first", np.ones((1, 1), "f4")),
    "other-kind": lambda files: with_tensor(files, MODEL, "first", np.ones((10, 32), "f8")),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_what_nothing_would_answer_with_is_not_registered(
    bank: Bank, change: Callable[[Files], object]
) -> None:
    with pytest.raises(IntegrityError) as caught:
        moves.register(bank, folder(bank, change), "bugs")
    assert caught.value.exit_code == 4
    assert bank.registry.tasks() == ()


def test_what_answers_its_canary_is_registered_and_proven(bank: Bank) -> None:
    version = moves.register(bank, folder(bank), "bugs")
    assert str(version) == "bugs@1"
    assert bank.registry.verify() == ()


def test_nothing_is_registered_where_nothing_can_be_tried(bank: Bank) -> None:
    bank.registry.backbone_weights.unlink()
    with pytest.raises(InputError, match="no such weights file"):
        moves.register(bank, folder(bank), "bugs")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


BACKBONE_DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped-bit": flip,
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "garbage": lambda path: path.write_bytes(b"no tensors at all"),
    "folder": become_folder,
    "another": lambda path: path.write_bytes(save_state(served.source(1).state)),
}


@pytest.mark.parametrize("damage", BACKBONE_DAMAGE.values(), ids=BACKBONE_DAMAGE)
def test_verify_tells_first_of_a_backbone_that_is_not_what_versions_were_trained_on(
    bank: Bank, damage: Callable[[Path], object]
) -> None:
    moves.register(bank, folder(bank), "bugs")
    damage(bank.registry.backbone_weights)
    (problem,) = bank.registry.verify()
    kind = "damaged" if bank.registry.backbone_weights.exists() else "absent"
    assert (problem.kind, problem.task) == (kind, None)
    assert problem.path == bank.registry.backbone_weights
    assert "adapterbank backbone fetch" in (problem.fix or "")
    assert bank.registry.verify("bugs@1") == (problem,)
    with pytest.raises(AdapterBankError):
        moves.register(bank, bank.root / "made", "bugs")


def test_a_version_that_was_published_without_a_canary_is_not_called_proven(bank: Bank) -> None:
    version = moves.register(bank, folder(bank), "bugs")
    files = bank.registry.read(version)
    config = json.loads(files["adapter_config.json"]) | {"task": "old"}
    del files[CANARY]
    files["adapter_config.json"] = json.dumps(config).encode()
    old = served.smuggle(bank.registry, "old", files)
    (problem,) = bank.registry.verify()
    assert (problem.kind, problem.task) == ("unproven", "old")
    loaded = load_adapter(bank.registry.read(old), served.backbone(), where=str(old))
    assert loaded.config.task == "old"
