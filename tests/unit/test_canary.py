"""The canary: the same images for ever, and an alarm when they are answered differently."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from adapterbank.errors import CanaryMismatch, IntegrityError
from adapterbank.inference import canary
from adapterbank.inference.canary import CANARY_IMAGES, canary_images, check_canary, pack_canary
from adapterbank.methods.base import Adapter, Folded
from adapterbank.records import InputSpec
from tests import served, tiny


def fold(adapter: Adapter) -> Folded:
    return adapter.requires_grad_(requires_grad=False).fold()


@pytest.mark.parametrize(
    ("size", "digest"),
    [
        ((24, 40), "5886d100506816b59417cb0c631b9f200be4fbe253edcd2482ab17427331b938"),
        ((84, 84), "05b2772374db550ff34e18d2ddb5531870596b8348514bc815c42ee072106f90"),
        ((224, 224), "cf73b2043d507efb8efced004cebea76a424d88ec0c9591547d73f5fe45ea2dc"),
    ],
    ids=["24x40", "84x84", "224x224"],
)
def test_the_images_are_the_same_for_ever(size: tuple[int, int], digest: str) -> None:
    # Never change these: every published version holds the logits of exactly these images.
    images = canary_images(InputSpec(size=size))
    assert len(images) == CANARY_IMAGES
    assert {image.mode for image in images} == {"RGB"}
    content = b"".join(image.tobytes() for image in images)
    assert hashlib.sha256(content).hexdigest() == digest


def test_the_images_differ_and_use_the_whole_range_and_are_really_resized() -> None:
    spec = InputSpec(size=(84, 84))
    first, second = (np.asarray(image) for image in canary_images(spec))
    assert not np.array_equal(first, second)
    assert (int(first.min()), int(first.max())) == (0, 255)
    assert first.shape[0] > spec.size[0]
    assert first.shape[1] > spec.size[1]
    assert first.shape[0] != first.shape[1]


def test_an_unchanged_adapter_answers_its_canary_to_the_bit() -> None:
    model, folded = served.backbone(), fold(served.adapter())
    assert check_canary(model, folded, pack_canary(model, folded), where="dtd@3") == 0.0


@pytest.mark.parametrize("part", ["weights", "first", "head_weight", "head_bias", "down"])
def test_a_changed_fold_is_refused_with_the_size_of_the_difference(part: str) -> None:
    model, folded = served.backbone(), fold(served.adapter())
    packed = pack_canary(model, folded)
    getattr(folded, part).mul_(-1.0).add_(1.0)
    with pytest.raises(CanaryMismatch, match="dtd@3: the same bytes answer differently") as caught:
        check_canary(model, folded, packed, where="dtd@3")
    expected = load(packed)["logits"]
    got = load(pack_canary(model, folded))["logits"]
    stated = re.search(r"differ by (\S+) of the largest", str(caught.value))
    assert stated is not None
    # the message rounds to three digits
    relative = np.abs(got - expected).max() / np.abs(expected).max()
    assert float(stated[1]) == pytest.approx(relative, rel=5e-3)


def test_another_backbone_of_equal_shapes_is_noticed() -> None:
    folded = fold(served.adapter())
    packed = pack_canary(served.backbone(), folded)
    with pytest.raises(CanaryMismatch):
        check_canary(served.backbone(seed=1), folded, packed, where="dtd@3")


def moved(packed: bytes, size: float) -> bytes:
    """A canary with one logit moved by a fraction of the largest."""
    logits = load(packed)["logits"].copy()
    logits[0, 0] += size * np.abs(logits).max()
    return save({"logits": logits})


def test_rounding_passes_and_its_size_is_told() -> None:
    model, folded = served.backbone(), fold(served.adapter())
    packed = moved(pack_canary(model, folded), 2e-4)
    # float32 rounding of logits; the moved one may be the largest
    assert check_canary(model, folded, packed, where="dtd@3") == pytest.approx(2e-4, rel=1e-2)


def test_a_computation_that_changed_a_little_is_refused() -> None:
    model, folded = served.backbone(), fold(served.adapter())
    packed = moved(pack_canary(model, folded), 5e-3)
    with pytest.raises(CanaryMismatch, match=r"(5\.0|4\.9).e-03"):
        check_canary(model, folded, packed, where="dtd@3")


@pytest.mark.parametrize(("device", "allowed"), [("cpu", 1e-3), ("cuda", 1e-4), ("cuda:1", 1e-4)])
def test_a_graphics_processor_has_a_tolerance_of_its_own(device: str, allowed: float) -> None:
    assert canary.tolerance(torch.device(device)) == allowed


def test_a_canary_is_held_to_the_tolerance_of_the_device_that_replays_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, folded = served.backbone(), fold(served.adapter())
    packed = moved(pack_canary(model, folded), 2e-4)
    asked: list[torch.device] = []

    def narrow(device: torch.device) -> float:
        asked.append(device)
        return 1e-4

    monkeypatch.setattr(canary, "tolerance", narrow)
    with pytest.raises(CanaryMismatch, match="allowed 1e-04 on cpu"):
        check_canary(model, folded, packed, where="dtd@3")
    assert asked == [model.device]


def test_an_answer_that_is_not_a_number_is_refused() -> None:
    model, folded = served.backbone(), fold(served.adapter())
    packed = pack_canary(model, folded)
    folded.head_bias.fill_(float("nan"))
    with pytest.raises(CanaryMismatch):
        check_canary(model, folded, packed, where="dtd@3")


def test_a_canary_of_another_number_of_classes_is_refused() -> None:
    model = served.backbone()
    packed = pack_canary(model, fold(served.adapter(classes=("ant", "bee"))))
    with pytest.raises(IntegrityError, match=r"of 4 classes, got logits float32 \(2, 2\)"):
        check_canary(model, fold(served.adapter()), packed, where="dtd@3")


@pytest.mark.parametrize("packed", [b"", b"not safetensors", save({"logit": np.zeros((2, 4))})])
def test_a_canary_without_logits_is_refused(packed: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"dtd@3/canary\.safetensors"):
        check_canary(served.backbone(), fold(served.adapter()), packed, where="dtd@3")


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_every_kind_of_backbone_answers_its_canary(kind: str) -> None:
    model = tiny.backbone(kind)
    folded = fold(tiny.adapter("vapt", model))
    packed = pack_canary(model, folded)
    assert load(packed)["logits"].shape == (CANARY_IMAGES, 5)
    assert check_canary(model, folded, packed, where="here") == 0.0
