"""Answers: those of a direct forward, of one version a call, from any number of threads."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adapterbank.backbones.loading import pick_device
from adapterbank.data.images import normalise, to_pixels
from adapterbank.errors import (
    BackboneMismatch,
    FetchError,
    ImageError,
    InputError,
    IntegrityError,
    UnknownName,
)
from adapterbank.inference import decoding
from adapterbank.inference.decoding import ImageInput
from adapterbank.inference.predictor import Predictor, load_bank_backbone
from adapterbank.model import mixed
from adapterbank.model.forward import forward
from adapterbank.model.mixed import forward_mixed
from adapterbank.records import InputSpec, Prediction, Reference
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from tests import served
from tests.opened import opened_records
from tests.served import picture


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Return a registry of two tasks; ``bugs`` has two versions, the first is champion."""
    registry = served.new_registry(tmp_path / "registry")
    served.publish(registry, "bugs", seed=1)
    served.publish(registry, "bugs", seed=2)
    registry.promote("bugs@1", expected=None)
    served.publish(registry, "colours", seed=3, method="vpt_deep", classes=("red", "green", "blue"))
    registry.promote("colours@1", expected=None)
    return registry


def encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


PICTURES = tuple(picture(seed) for seed in range(6))


def answers(predictions: list[Prediction]) -> list[tuple[object, ...]]:
    """All of the answers but what differs from call to call."""
    return [(p.task, p.version, p.digest, p.label, p.probability, p.top_k) for p in predictions]


def test_answers_are_those_of_a_direct_forward(registry: Registry) -> None:
    model, folded = served.backbone(), served.adapter(seed=1).fold()
    pixels = torch.stack([to_pixels(image, served.SPEC) for image in PICTURES])
    with torch.inference_mode():
        expected = forward(model, normalise(pixels, served.SPEC), folded).softmax(1)
    found = Predictor(registry).predict(PICTURES, task="bugs", top_k=4)
    for answer, row in zip(found, expected, strict=True):
        # fp32; the same products in the same shapes
        assert dict(answer.top_k) == pytest.approx(
            dict(zip(served.CLASSES, row.tolist(), strict=True)), abs=1e-6
        )
        assert answer.label == served.CLASSES[int(row.argmax())]


def test_an_answer_says_which_version_gave_it(registry: Registry) -> None:
    version = registry.resolve("bugs@2")
    (answer,) = Predictor(registry).predict([PICTURES[0]], task="bugs@2")
    assert (answer.task, answer.version, answer.digest) == ("bugs", 2, version.digest)
    assert answer.latency_ms > 0.0


def test_every_kind_of_reference_means_its_version(registry: Registry) -> None:
    predictor = Predictor(registry)
    digest = registry.resolve("bugs@2").digest
    registry.promote("bugs@2", alias="challenger", expected=None)
    refs = ["bugs@2", f"bugs@sha256:{digest}", f"bugs@sha256:{digest[:10]}", "bugs@challenger"]
    found = {predictor.predict([PICTURES[0]], task=ref)[0].digest for ref in refs}
    assert found == {digest}
    assert predictor.load(Reference(task="bugs", version=2))[0].digest == digest
    assert predictor.predict([PICTURES[0]], task="bugs")[0].version == 1


def test_paths_bytes_and_pictures_are_the_same_image(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "a picture.png"
    PICTURES[0].save(path)
    images: list[ImageInput] = [path, str(path), path.read_bytes(), PICTURES[0]]
    found = Predictor(registry).predict(images, task="bugs")
    assert len(set(answers(found))) == 1
    assert [answer.image for answer in found] == [str(path), str(path), "image 2", "image 3"]


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_answers_stand_in_the_order_of_the_images_whatever_the_batches(
    registry: Registry, batch_size: int
) -> None:
    predictor = Predictor(registry)
    together = predictor.predict(PICTURES, task="bugs", batch_size=batch_size)
    alone = [predictor.predict([image], task="bugs")[0] for image in PICTURES]
    assert [answer.image for answer in together] == [f"image {i}" for i in range(len(PICTURES))]
    for one, other in zip(together, alone, strict=True):
        # fp32: products of other shapes sum in another order.
        assert dict(one.top_k) == pytest.approx(dict(other.top_k), abs=1e-5)


def test_no_images_are_no_answers(registry: Registry) -> None:
    assert Predictor(registry).predict([], task="bugs") == []


@pytest.mark.parametrize(("top_k", "given"), [(1, 1), (2, 2), (4, 4), (1000, 4)])
def test_as_many_labels_are_given_as_asked_for_and_known_best_first(
    registry: Registry, top_k: int, given: int
) -> None:
    (answer,) = Predictor(registry).predict([PICTURES[0]], task="bugs", top_k=top_k)
    labels, probabilities = zip(*answer.top_k, strict=True)
    assert len(set(labels)) == given
    assert list(probabilities) == sorted(probabilities, reverse=True)
    assert (answer.label, answer.probability) == answer.top_k[0]


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"top_k": -1}, {"batch_size": 0}])
def test_sizes_that_mean_nothing_are_refused(registry: Registry, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="start at 1"):
        Predictor(registry).predict([PICTURES[0]], task="bugs", **wrong)


@pytest.mark.parametrize(
    ("ref", "near"), [("bug", "'bugs'"), ("bugs@9", "bugs@2"), ("bugs@champ", "champion")]
)
def test_an_unknown_version_names_its_neighbours(registry: Registry, ref: str, near: str) -> None:
    with pytest.raises(UnknownName, match=near):
        Predictor(registry).predict([PICTURES[0]], task=ref)


def test_unreadable_images_are_reported_in_their_place(registry: Registry, tmp_path: Path) -> None:
    missing = tmp_path / "missing.png"
    images: list[ImageInput] = [b"no image", PICTURES[0], missing, b"", PICTURES[1]]
    predictor = Predictor(registry)
    found = list(predictor.stream(images, task="bugs", batch_size=2))
    kinds = [type(answer) for answer in found]
    assert kinds == [ImageError, Prediction, ImageError, ImageError, Prediction]
    named = [answer.path for answer in found if isinstance(answer, ImageError)]
    assert named == ["image 0", str(missing), "image 3"]
    good = [answer for answer in found if isinstance(answer, Prediction)]
    assert [answer.image for answer in good] == ["image 1", "image 4"]
    alone = [predictor.predict([image], task="bugs")[0] for image in PICTURES[:2]]
    assert [dict(answer.top_k) for answer in good] == [
        pytest.approx(dict(answer.top_k), abs=1e-5)  # fp32, batches of other sizes
        for answer in alone
    ]


def test_predict_stops_at_an_unreadable_image(registry: Registry) -> None:
    with pytest.raises(ImageError, match="image 1"):
        Predictor(registry).predict([PICTURES[0], b"no image"], task="bugs")


def test_one_call_never_mixes_versions_though_the_alias_moves(registry: Registry) -> None:
    predictor = Predictor(registry)

    def images() -> Iterator[Image.Image]:
        yield PICTURES[0]
        registry.promote("bugs@2", expected=1)
        yield PICTURES[1]

    found = predictor.predict(images(), task="bugs", batch_size=1)
    assert [answer.version for answer in found] == [1, 1]
    assert predictor.predict([PICTURES[0]], task="bugs")[0].version == 2


def test_threads_that_ask_for_two_tasks_at_once_get_the_answers_of_one(
    registry: Registry,
) -> None:
    tasks = [("bugs", "colours")[i % 2] for i in range(8)]
    expected = {t: answers(Predictor(registry).predict(PICTURES, task=t)) for t in set(tasks)}
    shared, together = Predictor(registry), Barrier(8)  # nothing is loaded yet

    def ask(task: str) -> list[list[tuple[object, ...]]]:
        together.wait()
        return [answers(shared.predict(PICTURES, task=task)) for _ in range(3)]

    with ThreadPoolExecutor(8) as pool:
        for task, found in zip(tasks, pool.map(ask, tasks), strict=True):
            # to the bit: one thread each runs the same kernels on the same shapes
            assert found == [expected[task]] * 3


def test_a_version_is_read_and_checked_once(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = Registry.read

    def noted(self: Registry, version: Version) -> dict[str, bytes]:
        read.append(str(version))
        return real(self, version)

    monkeypatch.setattr(Registry, "read", noted)
    predictor = Predictor(registry)
    for ref in ("bugs", "bugs@1", "colours", "bugs"):
        predictor.predict([PICTURES[0]], task=ref)
    assert read == ["bugs@1", "colours@1"]


def test_other_weights_of_equal_shapes_are_refused(registry: Registry) -> None:
    served.write_weights(registry, seed=1)
    with pytest.raises(IntegrityError, match="fingerprint"):
        Predictor(registry).predict([PICTURES[0]], task="bugs")


def test_another_backbone_with_its_own_record_is_refused(
    registry: Registry, tmp_path: Path
) -> None:
    other = served.new_registry(tmp_path / "other", seed=1)
    for name in ("backbone.json", "backbone/model.safetensors"):
        (registry.root / name).write_bytes((other.root / name).read_bytes())
    with pytest.raises(BackboneMismatch, match="bugs@1"):
        Predictor(registry).predict([PICTURES[0]], task="bugs")


def test_missing_weights_say_how_to_get_them(registry: Registry) -> None:
    registry.backbone_weights.unlink()
    with pytest.raises(InputError) as caught:
        Predictor(registry).predict([PICTURES[0]], task="bugs")
    assert caught.value.fix == "adapterbank backbone fetch"


def test_a_registry_without_a_backbone_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(FetchError) as caught:
        load_bank_backbone(Registry.open(tmp_path, create=True))
    assert caught.value.fix == "adapterbank backbone fetch"


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "adapter_config.json", "canary.safetensors"]
)
def test_a_flipped_bit_is_refused_and_another_task_answers_on(
    registry: Registry, name: str
) -> None:
    path = registry.resolve("bugs").path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    predictor = Predictor(registry)
    with pytest.raises(IntegrityError, match=name):
        predictor.predict([PICTURES[0]], task="bugs")
    assert predictor.predict([PICTURES[0]], task="colours")[0].task == "colours"
    assert predictor.predict([PICTURES[0]], task="bugs@2")[0].version == 2


def test_a_version_in_use_answers_on_when_its_bytes_are_deleted(registry: Registry) -> None:
    predictor = Predictor(registry)
    before = answers(predictor.predict(PICTURES, task="bugs"))
    (registry.resolve("bugs").path / "adapter_model.safetensors").unlink()
    assert answers(predictor.predict(PICTURES, task="bugs")) == before
    with pytest.raises(IntegrityError):
        Predictor(registry).predict(PICTURES, task="bugs")


def test_a_folder_serves_as_well_as_an_open_registry(registry: Registry) -> None:
    found = [Predictor(at).predict(PICTURES, task="bugs") for at in (registry, registry.root)]
    assert answers(found[0]) == answers(found[1])


def test_a_single_path_instead_of_a_list_is_refused(registry: Registry) -> None:
    with pytest.raises(InputError, match="expected a list"):
        Predictor(registry).predict("photo.jpg", task="any")


def test_a_pil_image_is_turned_as_its_file_is(registry: Registry, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    path = tmp_path / "turned.png"  # lossless, and never drafted
    picture(3).save(path, exif=exif)
    with Image.open(path) as image:
        both = Predictor(registry).predict([path, image], task="bugs", top_k=3)
    # Two rows of a batch, which differ by rounding.
    (labels, shares), (others, other_shares) = (zip(*one.top_k, strict=True) for one in both)
    assert labels == others
    assert shares == pytest.approx(other_shares, abs=1e-5)


def test_a_pil_image_that_cannot_be_decoded_keeps_its_place(registry: Registry) -> None:
    whole = encoded(picture(3))
    broken = Image.open(io.BytesIO(whole[: len(whole) // 2]))  # lazily: only the header is read
    answers = list(Predictor(registry).stream([broken, picture(4)], task="bugs"))
    assert isinstance(answers[0], ImageError)
    assert isinstance(answers[1], Prediction)


# --- decoding beside the forward -----------------------------------------------------------------


@pytest.fixture
def decoders() -> Callable[[], list[str]]:
    """Return a function that names the threads that decode and were not there before the test."""
    before = set(threading.enumerate())
    return lambda: [
        thread.name
        for thread in threading.enumerate()
        if thread not in before and thread.name.startswith("decode")
    ]


def test_the_next_batch_is_decoded_while_one_is_answered(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, decoders: Callable[[], list[str]]
) -> None:
    begun = {f"image {number}": threading.Event() for number in range(len(PICTURES))}
    overlapped: list[bool] = []

    def noted(image: Image.Image, spec: InputSpec, *, name: str) -> torch.Tensor:
        begun[name].set()
        return to_pixels(image, spec, name=name)

    def waiting(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401  # as it is
        following = f"image {2 * len(overlapped) + 2}"
        # The last forward has no batch after it. Any other never ends unless the next is begun.
        overlapped.append(following not in begun or begun[following].wait(30))
        return forward_mixed(*arguments)

    monkeypatch.setattr(decoding, "to_pixels", noted)
    monkeypatch.setattr(mixed, "forward_mixed", waiting)
    found = Predictor(registry).predict(list(PICTURES), task="bugs", batch_size=2)
    assert overlapped == [True, True, True]
    assert [answer.image for answer in found] == list(begun)
    assert decoders() == []


def test_an_iterator_is_asked_for_images_only_when_they_are_needed(registry: Registry) -> None:
    taken: list[int] = []

    def camera() -> Iterator[Image.Image]:
        for number, image in enumerate(PICTURES):
            taken.append(number)
            yield image

    stream = Predictor(registry).stream(camera(), task="bugs", batch_size=2)
    for answered in range(1, len(PICTURES) + 1):
        next(stream)
        assert len(taken) == 2 * math.ceil(answered / 2)


@pytest.mark.parametrize("asked", [{"task": "bugs"}, {"tasks": ["bugs", "colours"] * 3}], ids=str)
def test_an_abandoned_stream_stops_its_threads(
    registry: Registry, asked: dict[str, Any], decoders: Callable[[], list[str]]
) -> None:
    stream = Predictor(registry).stream(list(PICTURES), batch_size=1, **asked)
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # it is a generator
    assert decoders() == []


def test_an_error_in_the_forward_stops_the_threads(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, decoders: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(mixed, "forward_mixed", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Predictor(registry).predict(list(PICTURES), task="bugs", batch_size=1)
    assert decoders() == []


# --- versions and devices ------------------------------------------------------------------------


def test_a_version_that_was_resolved_is_not_resolved_again(registry: Registry) -> None:
    predictor, version = Predictor(registry), registry.resolve("bugs@2")
    expected = answers(predictor.predict(PICTURES, task="bugs@2"))
    with opened_records() as records:
        assert answers(predictor.predict(PICTURES, task=version)) == expected
        assert predictor.load(version)[0] == version
    assert records == []


def test_a_predictor_runs_on_the_processor_unless_told_otherwise(registry: Registry) -> None:
    assert Predictor(registry).backbone.device == torch.device("cpu")
    assert load_bank_backbone(registry).device == torch.device("cpu")
    assert load_bank_backbone(registry, "auto").device == pick_device("auto")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(InputError, match=f"device '{name}'"):
        Predictor(registry, device=name)
    with pytest.raises(InputError, match=f"device '{name}'"):
        load_bank_backbone(registry, name)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_a_picture_without_pixels_is_an_error_of_that_image(
    registry: Registry, size: tuple[int, int]
) -> None:
    (answer,) = Predictor(registry).stream([Image.new("RGB", size)], task="bugs")
    assert isinstance(answer, ImageError)
    assert answer.reason == f"has no pixels: it is {size[0]}×{size[1]}"


WRONG_IMAGES: dict[str, Any] = {
    "none": None,
    "array": np.zeros((4, 4, 3), dtype=np.uint8),
    "file": io.BytesIO(b"x"),
    "number": 3,
    "list": ["a.png"],
}


@pytest.mark.parametrize("image", WRONG_IMAGES.values(), ids=WRONG_IMAGES)
def test_what_is_no_image_is_an_error_of_that_image_which_says_what_is_expected(
    registry: Registry, image: ImageInput
) -> None:
    predictor = Predictor(registry)
    answers = list(predictor.stream([image, PICTURES[0]], task="bugs"))
    assert isinstance(answers[0], ImageError)
    assert "expected a path, the bytes of a file" in answers[0].message
    assert isinstance(answers[1], Prediction)
    mixed = list(predictor.stream([image, PICTURES[0]], tasks=["bugs", "bugs"]))
    assert [type(answer) for answer in mixed] == [ImageError, Prediction]


NOTHING: Any = None
TEXT: Any = "1"
MISUSES: dict[str, Callable[[Any], object]] = {
    "no-list": lambda predictor: predictor.predict(None, task="bugs"),
    "one-image": lambda predictor: predictor.predict(PICTURES[0], task="bugs"),
    "one-file": lambda predictor: predictor.predict(io.BytesIO(b"x"), task="bugs"),
    "task-of-number": lambda predictor: predictor.predict([], task=3),
    "tasks-of-none": lambda predictor: predictor.predict([b""], tasks=[None]),
    "tasks-of-lists": lambda predictor: predictor.predict([b""], tasks=[["bugs"]]),
    "tasks-a-number": lambda predictor: predictor.predict([b""], tasks=1),
    "top-k-none": lambda predictor: predictor.predict([], task="bugs", top_k=None),
    "batch-of-half": lambda predictor: predictor.predict([], task="bugs", batch_size=0.5),
    "top-k-true": lambda predictor: predictor.predict([], task="bugs", top_k=True),
    "task-of-array": lambda predictor: predictor.predict([], task=np.array(["a", "b"])),
    "budget": lambda predictor: Predictor(predictor.registry, budget_bytes=NOTHING),
    "budget-of-text": lambda predictor: Predictor(predictor.registry, budget_bytes=TEXT),
    "versions-of-none": lambda predictor: predictor.registry.versions(None),
    "verify-a-number": lambda predictor: predictor.registry.verify(5),
    "rollback-alias": lambda predictor: predictor.registry.rollback("bugs", alias=None),
    "device": lambda predictor: Predictor(predictor.registry, device=NOTHING),
    "registry": lambda _: Predictor(NOTHING),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
def test_a_wrong_argument_is_a_typed_error(
    registry: Registry, misuse: Callable[[Any], object]
) -> None:
    with pytest.raises(InputError):
        misuse(Predictor(registry))


def test_a_bank_instead_of_its_registry_is_told_which_folder_that_is(tmp_path: Path) -> None:
    for name in ("registry", "pipelines"):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=r"is a bank; its registry is the folder .*/registry"):
        Predictor(tmp_path)
