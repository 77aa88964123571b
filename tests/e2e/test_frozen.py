"""Frozen features are computed once for each split, backbone and state of the images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapterbank.continual import frozen
from adapterbank.continual.bank import Bank
from adapterbank.continual.frozen import FrozenSplit, frozen_split
from adapterbank.data.store import load_task
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.training.evaluation import extract_features
from tests.search_trials import TASK


def test_frozen_features_are_those_of_the_split_and_are_kept(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bank.open(bank)
    backbone = load_bank_backbone(opened.registry, torch.device("cpu"))
    data = load_task(opened.data(TASK), spec=backbone.spec)

    for name in ("val", "test"):
        found = frozen_split(opened, backbone, TASK, name)
        torch.testing.assert_close(
            found.features, extract_features(backbone, data.split(name)), rtol=0, atol=0
        )
        assert found.labels.equal(data.split(name).labels)

    monkeypatch.setattr(frozen, "extract_features", None)  # to be asked no more
    again = frozen_split(opened, backbone, TASK, "val")
    assert again.features.equal(frozen_split(opened, backbone, TASK, "val").features)


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
