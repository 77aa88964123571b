"""Frozen features are computed once for each split, backbone and state of the images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapterbank.bank import features
from adapterbank.bank.bank import Bank
from adapterbank.bank.features import FrozenSplit, frozen_split
from adapterbank.data.store import load_task
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.training.evaluation import extract_features, extract_frozen
from tests.search_trials import TASK


def test_frozen_features_are_those_of_the_split_and_are_kept(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bank.open(bank)
    backbone = load_bank_backbone(opened.registry, torch.device("cpu"))
    data = load_task(opened.data(TASK), spec=backbone.spec)

    for name in ("val", "test"):
        found = frozen_split(opened, backbone, TASK, name)
        last = extract_features(backbone, data.split(name))
        middle = extract_frozen(backbone, data.split(name), (backbone.traits.blocks // 2,))
        torch.testing.assert_close(found.last, last, rtol=0, atol=0)
        # Of a block that is the last to run only the token that is read is computed.
        torch.testing.assert_close(found.features[:, :1], middle, rtol=0, atol=1e-5)
        assert found.labels.equal(data.split(name).labels)

    monkeypatch.setattr(features, "extract_frozen", None)  # to be asked no more
    again = frozen_split(opened, backbone, TASK, "val")
    assert again.features.equal(frozen_split(opened, backbone, TASK, "val").features)
    one = frozen_split(opened, backbone, TASK, "val", (backbone.traits.blocks,))
    assert one.features.equal(again.features[:, 1:])


def test_another_block_is_run_once_and_kept_beside_those_of_the_bank(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bank.open(bank)
    backbone = load_bank_backbone(opened.registry, torch.device("cpu"))
    usual = frozen_split(opened, backbone, TASK, "val")
    first = frozen_split(opened, backbone, TASK, "val", (1,))
    monkeypatch.setattr(features, "extract_frozen", None)  # to be asked no more
    _assert_equal(frozen_split(opened, backbone, TASK, "val", (1,)), first)
    _assert_equal(frozen_split(opened, backbone, TASK, "val"), usual)


@pytest.mark.parametrize("harm", ["damaged", "missing", "of other images"])
def test_what_is_kept_is_never_trusted_beyond_what_it_is_of(bank: Path, harm: str) -> None:
    opened = Bank.open(bank)
    backbone = load_bank_backbone(opened.registry, torch.device("cpu"))
    whole = frozen_split(opened, backbone, TASK, "val")
    kept = opened.note(TASK, "frozen") / "val.safetensors"
    if harm == "damaged":
        kept.write_bytes(kept.read_bytes()[:100])
    elif harm == "missing":
        kept.unlink()
    else:
        content = kept.read_bytes()
        kept.write_bytes(content.replace(b'"data":"', b'"data":"0', 1)[: len(content)])

    _assert_equal(frozen_split(opened, backbone, TASK, "val"), whole)


def _assert_equal(one: FrozenSplit, other: FrozenSplit) -> None:
    assert one.features.equal(other.features)
    assert one.labels.equal(other.labels)
