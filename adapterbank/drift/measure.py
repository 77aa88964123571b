"""Have the images of a task changed since it was trained? Measured, never acted upon.

New images are compared with the record that the version stores: the frozen features of up to 256
held-out images, and the training images' scatter, by which distances are measured. Both samples go
through the same rounding, so that nothing but the images can tell them apart. What few
held-out images limit is power, not the promise of few false alarms: with 80 of them a window of
5,000 images sees little more than one of 200.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.bank.bank import Bank
from adapterbank.bank.features import adapter_logits
from adapterbank.data.images import normalise
from adapterbank.data.store import stored_digest
from adapterbank.drift.windows import (
    Advice,
    HeldOut,
    Images,
    Settings,
    Window,
    check_enough,
    judge,
)
from adapterbank.errors import ImageError, InputError
from adapterbank.inference.artifact import ROUTING, LoadedAdapter
from adapterbank.inference.champions import read_routing
from adapterbank.inference.decoding import ImageInput, decoded_batches
from adapterbank.inference.predictor import Predictor
from adapterbank.inference.router_versions import RouterPlan
from adapterbank.methods.base import Folded
from adapterbank.model import forward
from adapterbank.records import ROUTER
from adapterbank.registry.versions import Version
from adapterbank.routing.record import Floats, RoutingRecord
from adapterbank.routing.router import Router
from adapterbank.routing.scores import unit_rows
from adapterbank.training.evaluation import EVALUATION_BATCH, Progress


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What became of a task's images."""

    version: Version  # whose record and answers they were compared with
    settings: Settings
    held_out: int  # images of the record
    compared: str  # split on which the version's confidence was compared; "" where on none
    confidence: float | None  # its mean there
    windows: tuple[Window, ...]
    advice: Advice
    left_over: int  # images at the end that fill no window
    unreadable: tuple[ImageError, ...]

    @property
    def sentence(self) -> str:
        """The advice in words: what was seen and what to type."""
        advice, task = self.advice, self.version.task
        moved = [str(index + 1) for index, window in enumerate(self.windows) if window.moved]
        if advice.action == "none" and moved:
            return f"none: only window {', '.join(moved)} moved; two in a row are an alarm"
        sure = f"the answers are {advice.confidence:.0%} sure"
        usual = "" if self.confidence is None else f", usually {self.confidence:.0%}"
        words = {
            "none": f"none: nothing tells them from the {self.held_out} held-out images",
            "recalibrate": f"recalibrate: the images changed, but {sure}{usual}. With some of them"
            f" among the validation images of {task}, dvc repro fits the router's thresholds anew",
            "retrain": f"retrain: the images changed and {sure}{usual}. Add some of them, labelled,"
            f" to the data of {task}, then: dvc repro",
            "new task": f"new task: {advice.abstained:.0%} are of no known task and"
            f" {sum(advice.elsewhere.values()):.0%} a little like others. Either they were changed"
            " beyond recognition, or: adapterbank task add NAME --data FOLDER",
            "other task": f"other task: {advice.elsewhere.get(advice.other or '', 0):.0%} look"
            f" like {advice.other}. Ask for that, or: adapterbank predict --task auto",
        }[advice.action]
        if advice.action in {"recalibrate", "retrain"} and self.confidence is None:
            words += (
                f". Whether {self.version} is less sure than it was cannot be told: the images it"
                " was trained by are not prepared here"
            )
        if advice.alarmed and len(self.windows) == 1:
            words += " (by the only window; two in a row would be surer)"
        return words

    def as_json(self) -> dict[str, Any]:
        """What ``drift --json`` prints."""
        return {
            "task": self.version.task,
            "version": self.version.version,
            "digest": self.version.digest,
            **asdict(self.advice),
            "reference": {
                "held_out": self.held_out,
                "confidence": self.confidence,
                "confidence_of": self.compared or None,
            },
            "settings": asdict(self.settings),
            "windows": [{**asdict(window), "moved": window.moved} for window in self.windows],
            "left_over": self.left_over,
            "unreadable": [
                {"image": error.path, "error": error.reason} for error in self.unreadable
            ],
        }


def measure_drift(
    bank: Bank,
    ref: str,
    images: Sequence[ImageInput],
    *,
    settings: Settings | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Drift:
    """Compare new images of a task with those it was trained on.

    The router is built from the champions' records, this version's in the place of its task's.
    Nothing is written but the version's answers to its own images, which are kept.

    Args:
        bank: an open bank with a backbone.
        ref: the version.
        images: in the order they came.
        settings: the defaults if None.
        device: where to run.
        progress: told of the new images.

    Raises:
        InputError: too few images can be decoded, or the version stores no usable record.
        IntegrityError: a version or the backbone is not what was published.
        UnknownName: no such task, version or alias.
    """
    settings = settings or Settings()
    predictor = Predictor(bank.registry, device=device)
    version = bank.registry.resolve(ref)
    record = _record(version)
    held_out = len(record.last.calibration)
    check_enough(version.task, held_out, len(images), settings)  # before they are run
    router = _router(bank, version, record)
    _, loaded = predictor.load(f"{version.task}@sha256:{version.digest}")
    features, confidence, unreadable = _run(
        predictor.backbone, router.blocks, loaded.folded, images, progress
    )
    compared, usual = _usual_confidence(bank, version, loaded, predictor.backbone)
    reference, new = compare_images(router, version.task, record, (features, confidence), usual)
    windows, advice = judge(version.task, reference, new, settings)
    return Drift(
        version=version,
        settings=settings,
        held_out=len(reference.features),
        compared=compared,
        confidence=None if usual is None else float(usual.mean()),
        windows=windows,
        advice=advice,
        left_over=len(confidence) - settings.window * len(windows),
        unreadable=unreadable,
    )


def _router(bank: Bank, version: Version, record: RoutingRecord) -> Router:
    """Build the bank's router with a version in the place of its task's champion.

    Raises:
        InputError: no image is ever given to its task, or its record cannot be measured.
    """
    plan = RouterPlan.of(bank.registry, bank.config.router)
    if version.task == plan.aside:
        raise InputError(
            f"{version} is of what the router measures by: no image is ever given to its task",
            fix="set router.reference in pipelines/params.yaml to null, or ask for another task",
        )
    why = plan.misfit(record)
    if why:
        raise InputError(
            f"{version} cannot be compared: {why}",
            fix=f"dvc repro -f train@{version.task} && dvc repro",
        )
    return plan.build({**plan.champions(bank.registry).records, version.task: record})


def compare_images(
    router: Router,
    task: str,
    record: RoutingRecord,
    new: tuple[Floats, Floats],
    usual: Floats | None,
) -> tuple[HeldOut, Images]:
    """Put both samples into the space in which they are compared.

    Familiarity is the router's, of all its blocks; features are those of the deepest.

    Args:
        router: knows the task.
        task: what the images are said to be of.
        record: with the held-out images of the task.
        new: of new images, features (n, L, D) after the router's blocks, and probabilities (n,) of
            the answers to them.
        usual: (V,) probabilities of the answers to images that the version was not trained on.
    """
    features, confidence = new
    held = record.calibration(router.blocks)
    rows = record.as_stored(unit_rows(features), router.blocks)
    white = router.spreads[-1].within.whiten
    judgement = router.judge(rows)
    unknown = judgement.p_values <= router.alpha
    names = np.array(router.tasks)[judgement.chosen]
    return (
        HeldOut(
            features=white(held[:, -1]),
            familiarity=router.familiarity(held, task),
            confidence=usual,
        ),
        Images(
            features=white(rows[:, -1]),
            familiarity=router.familiarity(rows, task),
            confidence=confidence,
            tasks=np.where(unknown, "", names).tolist(),
        ),
    )


def _record(version: Version) -> RoutingRecord:
    """Read the version's own record.

    Raises:
        InputError: it stores none, or is the router.
    """
    if version.task == ROUTER:
        raise InputError(f"{version} is the router, not a task", fix="adapterbank list")
    routing = read_routing(version)
    if routing is None:
        raise InputError(
            f"{version} stores no {ROUTING}, so nothing says what its images were like",
            fix=f"adapterbank train {version.task}",
        )
    return routing[0]


@torch.inference_mode()
def _run(
    backbone: TimmViT,
    blocks: Sequence[int],
    folded: Folded,
    images: Sequence[ImageInput],
    progress: Progress | None,
) -> tuple[Floats, Floats, tuple[ImageError, ...]]:
    """Run the bare backbone and the version over the images that can be decoded."""
    features, confidence, unreadable, decoded = [], [], [], 0
    for batch in decoded_batches(zip(images, repeat(None)), backbone.spec, EVALUATION_BATCH):
        contents = [image.content for image, _ in batch]
        unreadable += [content for content in contents if isinstance(content, ImageError)]
        pixels = [content for content in contents if isinstance(content, Tensor)]
        if pixels:
            normal = normalise(torch.stack(pixels).to(backbone.device), backbone.spec)
            features.append(forward.frozen_features(backbone, normal, blocks).double().cpu())
            confidence.append(_confidence(forward.forward(backbone, normal, folded)))
        decoded += len(batch)
        if progress is not None:
            progress(decoded, len(images))
    if not features:
        named = "; ".join(error.message for error in unreadable[:3])
        raise InputError(f"none of the {len(images)} images can be read: {named}")
    return torch.cat(features).numpy(), np.concatenate(confidence), tuple(unreadable)


def _usual_confidence(
    bank: Bank, version: Version, loaded: LoadedAdapter, backbone: TimmViT
) -> tuple[str, Floats | None]:
    """How sure the version is of images like those it was trained on, but not these.

    A version that was trained on its validation images too is surer of them than of any others;
    then it is asked about the test images. Their labels are not looked at, and nothing is chosen.
    """
    folder = bank.data(version.task)
    try:
        digest = stored_digest(folder)
    except InputError:
        digest = None  # nothing is prepared here
    if digest != loaded.config.data.digest:
        return "", None
    split = "test" if loaded.config.train.get("fit") == "train+val" else "val"
    return split, _confidence(adapter_logits(bank, backbone, version.task, split, loaded).logits)


def _confidence(logits: Tensor) -> Floats:
    """(B,) probability of the answer."""
    best: Floats = logits.double().softmax(dim=1).amax(dim=1).cpu().numpy()
    return best
