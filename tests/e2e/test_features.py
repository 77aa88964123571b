"""What the backbone gives for prepared images is computed once, and never trusted blindly."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adapterbank import durable
from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.bank import features
from adapterbank.bank.bank import Bank
from adapterbank.bank.features import FOLDER, FrozenSplit, adapter_logits, frozen_split
from adapterbank.bank.measure import measure
from adapterbank.data.store import load_task
from adapterbank.inference.predictor import Predictor, load_bank_backbone
from adapterbank.model.threads import computing_with
from adapterbank.pipeline.release import release
from adapterbank.training.checked import pack_checked, unpack_checked
from adapterbank.training.evaluation import (
    evaluate,
    extract_features,
    extract_frozen,
    split_logits,
)
from tests import learning
from tests.passes import Passes
from tests.search_trials import TASK
from tests.task_files import restate

TWO = """tasks:
  reds: {data: photos/reds, seed: 1}
  greens: {data: photos/greens, seed: 1}
"""


@pytest.fixture
def opened(bank: Path) -> Bank:
    """Return a bank whose stages have run, without what they kept."""
    shutil.rmtree(bank / "work" / TASK / FOLDER)
    return Bank.open(bank)


@pytest.fixture
def backbone(opened: Bank) -> TimmViT:
    """Return the bank's backbone."""
    return load_bank_backbone(opened.registry, torch.device("cpu"))


def test_a_task_s_stages_and_releases_run_each_image_as_seldom_as_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "bank"
    bank = learning.new_bank(root)
    params = root / "pipelines" / "params.yaml"
    params.write_text(params.read_text().replace("tasks: {} # none yet\n", TWO))
    passes = Passes(monkeypatch)
    learning.run_pipeline(root, until="register")
    # Bare; for the head's start and in the epoch, or after it; under the trained adapter.
    once = {"train": {3}, "val": {2}, "test": {2}}
    assert {task: passes.of(bank, task) for task in ("reds", "greens")} == {
        "reds": once, "greens": once
    }  # fmt: skip
    release(Bank.open(root))
    release(Bank.open(root))
    assert {task: passes.of(bank, task) for task in ("reds", "greens")} == {
        "reds": once, "greens": once
    }  # fmt: skip
    params.write_text(
        params.read_text().replace("photos/reds,", "photos/reds, hyper: {prompts: 3},")
    )
    learning.run_pipeline(root)  # the same images: what the bare backbone gives is there
    assert passes.of(bank, "reds") == {"train": {5}, "val": {3}, "test": {3}}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_frozen_features_are_those_of_the_split(
    opened: Bank, backbone: TimmViT, split: str
) -> None:
    images = load_task(opened.data(TASK), spec=backbone.spec).split(split)
    frozen = frozen_split(opened, backbone, TASK, split)
    with computing_with(opened.config.training(TASK).threads):
        last = extract_features(backbone, images)
        middle = extract_frozen(backbone, images, (backbone.traits.blocks // 2,))
    torch.testing.assert_close(frozen.last, last, rtol=0, atol=0)
    # Of a block that is the last to run only the token that is read is computed.
    torch.testing.assert_close(frozen.features[:, :1], middle, rtol=0, atol=1e-5)
    assert frozen.labels.equal(images.labels)


def test_logits_that_training_kept_are_those_of_the_version_to_the_bit(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bank.open(bank)
    predictor = Predictor(opened.registry)
    _, adapter = predictor.load(f"{TASK}@2")  # work/ holds the second version
    passes = Passes(monkeypatch)
    kept = {split: adapter_logits(opened, predictor.backbone, TASK, split, adapter)
            for split in ("val", "test")}  # fmt: skip
    assert passes.of(opened, TASK) == {"train": {0}, "val": {0}, "test": {0}}
    data = load_task(opened.data(TASK))
    for split, answers in kept.items():
        images = data.split(split)
        with computing_with(opened.config.training(TASK).threads):
            logits = split_logits(predictor.backbone, images, adapter.folded)
        assert answers.logits.equal(logits)
        assert answers.labels.equal(images.labels)


def test_a_disk_that_takes_nothing_more_costs_no_answer(
    opened: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        del data
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(durable, "replace_file", refuse)
    measured = measure(opened, f"{TASK}@2", split="val")
    assert measured.score.total == len(load_task(opened.data(TASK)).val)


def test_a_measured_version_is_run_once(opened: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes(monkeypatch)
    first, again = (measure(opened, f"{TASK}@2", split="test") for _ in range(2))
    assert first == again
    assert passes.of(opened, TASK)["test"] == {1}
    predictor = Predictor(opened.registry)
    images = load_task(opened.data(TASK)).test
    _, adapter = predictor.load(f"{TASK}@2")
    with computing_with(opened.config.training(TASK).threads):
        answers = evaluate(predictor.backbone, images, adapter.folded)
    assert (first.score, first.loss) == (answers.score, answers.loss)


def test_another_block_is_run_once_and_kept_beside_those_of_the_bank(
    opened: Bank, backbone: TimmViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = frozen_split(opened, backbone, TASK, "val")
    first = frozen_split(opened, backbone, TASK, "val", (1,))
    passes = Passes(monkeypatch)
    _assert_equal(frozen_split(opened, backbone, TASK, "val", (1,)), first)
    _assert_equal(frozen_split(opened, backbone, TASK, "val"), usual)
    last = frozen_split(opened, backbone, TASK, "val", (backbone.traits.blocks,))
    assert last.features.equal(usual.features[:, -1:])
    assert passes.of(opened, TASK)["val"] == {0}


@pytest.mark.parametrize("harm", ["cut", "flipped", "missing", "of other images", "of threads"])
def test_what_is_kept_is_never_trusted_beyond_what_it_is_of(
    opened: Bank, backbone: TimmViT, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = frozen_split(opened, backbone, TASK, "val")
    kept = opened.note(TASK, FOLDER) / "frozen-val.safetensors"
    content = kept.read_bytes()
    if harm == "cut":
        kept.write_bytes(content[:100])
    elif harm == "flipped":
        kept.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    elif harm == "missing":
        kept.unlink()
    else:
        tensors, key = unpack_checked(content)
        old, new = {
            "of other images": ('"data": "', '"data": "0'),
            "of threads": ('"threads": 1', '"threads": 2'),
        }[harm]
        assert old in key
        kept.write_bytes(pack_checked(tensors, key.replace(old, new)))
    passes = Passes(monkeypatch)
    _assert_equal(frozen_split(opened, backbone, TASK, "val"), whole)
    assert passes.of(opened, TASK)["val"] == {1}


@pytest.mark.parametrize("other", ["adapter", "images", "code"])
def test_logits_are_of_one_adapter_and_of_one_state_of_the_images(
    opened: Bank, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(opened.registry)
    _, adapter = predictor.load(f"{TASK}@1")
    adapter_logits(opened, predictor.backbone, TASK, "val", adapter)
    passes = Passes(monkeypatch)
    if other == "adapter":
        adapter = replace(adapter, digest="0" * 64)
    elif other == "code":
        monkeypatch.setattr(features, "_code", lambda _: "of an edited forward")
    else:
        restate(opened.data(TASK), digest="0" * 64)
    adapter_logits(opened, predictor.backbone, TASK, "val", adapter)
    assert passes.of(opened, TASK)["val"] == {1}


def _assert_equal(one: FrozenSplit, other: FrozenSplit) -> None:
    assert one.features.equal(other.features)
    assert one.labels.equal(other.labels)
