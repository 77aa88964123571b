"""A task for each image: answers in order, each as alone, from the version asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from adapterbank.errors import ImageError, InputError, IntegrityError, UnknownName
from adapterbank.inference.decoding import ImageInput
from adapterbank.inference.predictor import Predictor
from adapterbank.methods.base import Adapter
from adapterbank.records import Prediction
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from tests import served
from tests.bank_samples import damage
from tests.served import picture

PICTURES = tuple(picture(seed) for seed in range(9))
TASKS: dict[str, dict[str, Any]] = {
    "bugs": {"seed": 1},
    "birds": {"seed": 2, "classes": ("owl", "jay"), "hyper": {"prompts": 3, "rank": 2}},
    "colours": {"seed": 3, "method": "vpt_deep", "classes": ("red", "green", "blue")},
    "shapes": {"seed": 4, "method": "vpt_shallow", "classes": ("disc",)},
    "letters": {"seed": 5, "method": "linear", "classes": tuple("abcdefg")},
}
ASKED = ("bugs", "letters", "birds", "shapes", "bugs@2", "colours", "bugs", "birds@1", "letters")


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Return a registry of five tasks that differ in everything; no test changes it."""
    return build(tmp_path_factory.mktemp("mixed") / "registry", tuple(TASKS))


def build(root: Path, tasks: tuple[str, ...]) -> Registry:
    registry = served.new_registry(root)
    for task in tasks:
        served.publish(registry, task, **TASKS[task])
        registry.promote(f"{task}@1", expected=None)
    served.publish(registry, "bugs", seed=9)
    return registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Return a registry of two tasks, to be changed."""
    return build(tmp_path / "registry", ("bugs", "colours"))


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_each_image_is_answered_as_alone_in_order(read_only: Registry, batch_size: int) -> None:
    predictor = Predictor(read_only)
    found = predictor.predict(PICTURES, tasks=ASKED, batch_size=batch_size, top_k=9)
    for index, (answer, ref) in enumerate(zip(found, ASKED, strict=True)):
        (alone,) = predictor.predict([PICTURES[index]], task=ref, top_k=9)
        assert answer.image == f"image {index}"
        assert (answer.task, answer.version, answer.digest, answer.label) == (
            alone.task, alone.version, alone.digest, alone.label,
        )  # fmt: skip
        assert answer.probability == answer.top_k[0][1]
        # fp32: products of other shapes sum in another order.
        assert dict(answer.top_k) == pytest.approx(dict(alone.top_k), abs=1e-5)
        assert sum(dict(answer.top_k).values()) == pytest.approx(1.0, abs=1e-5)


def test_a_probability_of_zero_is_still_of_a_class_of_the_task(registry: Registry) -> None:
    def sharpen(adapter: Adapter) -> None:
        with torch.no_grad():
            adapter.head.weight.mul_(1e6)

    served.publish(registry, "sharp", 7, classes=("owl", "jay"), change=sharpen)
    found = Predictor(registry).predict(PICTURES[:2], tasks=["sharp@1", "bugs"], top_k=4)
    assert {label for label, _ in found[0].top_k} == {"owl", "jay"}
    assert sorted(dict(found[0].top_k).values()) == [0.0, 1.0]


def test_one_task_for_all_images_answers_as_the_task_to_the_bit(read_only: Registry) -> None:
    predictor = Predictor(read_only)
    one = predictor.predict(PICTURES, task="birds")
    each = predictor.predict(PICTURES, tasks=["birds"] * len(PICTURES))
    assert [answer.top_k for answer in each] == [answer.top_k for answer in one]


def test_each_reference_is_resolved_once_a_call(
    read_only: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved: list[str] = []
    real = Registry.resolve

    def noted(self: Registry, ref: str) -> Version:
        resolved.append(ref)
        return real(self, ref)

    monkeypatch.setattr(Registry, "resolve", noted)
    Predictor(read_only).predict(PICTURES, tasks=ASKED, batch_size=2)
    assert sorted(resolved) == sorted(set(ASKED))


def test_one_call_keeps_to_its_versions_though_an_alias_moves(registry: Registry) -> None:
    predictor = Predictor(registry)

    def images() -> Iterator[Image.Image]:
        yield PICTURES[0]
        yield PICTURES[1]
        registry.promote("bugs@2", expected=1)
        yield from PICTURES[2:4]

    refs = ("bugs", "colours") * 2
    found = predictor.predict(images(), tasks=refs, batch_size=2)
    assert [answer.version for answer in found] == [1, 1, 1, 1]
    assert predictor.predict(PICTURES[:2], tasks=refs[:2])[0].version == 2


def test_unreadable_images_keep_their_place(read_only: Registry) -> None:
    images: list[ImageInput] = [PICTURES[0], b"no image", PICTURES[2], b""]
    predictor = Predictor(read_only)
    found = list(predictor.stream(images, tasks=["bugs", "birds", "colours", "bugs"]))
    kinds = [type(answer) for answer in found]
    assert kinds == [Prediction, ImageError, Prediction, ImageError]
    assert [answer.task for answer in found if isinstance(answer, Prediction)] == [
        "bugs", "colours",
    ]  # fmt: skip
    with pytest.raises(ImageError, match="image 1"):
        predictor.predict(images, tasks=["bugs"] * 4)


def test_a_batch_without_a_readable_image_needs_no_version(read_only: Registry) -> None:
    predictor = Predictor(read_only)
    found = list(predictor.stream([b"", b"no"], tasks=["bugs", "birds"]))
    assert [type(answer) for answer in found] == [ImageError, ImageError]
    assert predictor.residents.residency().versions == 0


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "one of task and tasks"),
        ({"task": "bugs", "tasks": ["bugs"] * 9}, "one of task and tasks"),
        ({"tasks": "bugs"}, "one string"),
        ({"tasks": ["bugs"] * 8}, "9 images, but 8 tasks"),
        ({"tasks": []}, "9 images, but 0 tasks"),
    ],
    ids=["neither", "both", "a-string", "too-few", "none"],
)
def test_what_is_no_task_for_each_image_is_refused(
    read_only: Registry, asked: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        Predictor(read_only).predict(PICTURES, **asked)


@pytest.mark.parametrize(("count", "says"), [(8, "tasks end after 8"), (10, "images end after 9")])
def test_images_of_unknown_number_must_be_as_many_as_tasks(
    read_only: Registry, count: int, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        Predictor(read_only).predict(iter(PICTURES), tasks=["letters"] * count)


def test_no_images_with_no_tasks_are_no_answers(read_only: Registry) -> None:
    assert Predictor(read_only).predict([], tasks=[]) == []


def test_an_unknown_reference_is_told_before_anything_is_answered(read_only: Registry) -> None:
    stream = Predictor(read_only).stream(
        PICTURES[:2], tasks=["bugs", "bugz"], batch_size=1
    )  # fmt: skip
    with pytest.raises(UnknownName, match="'bugs'"):
        next(stream)


def test_a_flipped_bit_is_refused_and_other_tasks_answer_on(registry: Registry) -> None:
    damage(registry.resolve("bugs").path / "adapter_model.safetensors")
    predictor = Predictor(registry)
    with pytest.raises(IntegrityError, match=r"adapter_model\.safetensors"):
        predictor.predict(PICTURES[:2], tasks=["colours", "bugs"])
    found = predictor.predict(PICTURES[:2], tasks=["colours", "bugs@2"])
    assert [str(answer.version) + answer.task for answer in found] == ["1colours", "2bugs"]
    assert predictor.residents.residency().readers == 0


def test_no_budget_at_all_answers_alike_and_leaves_nothing(read_only: Registry) -> None:
    generous, none = Predictor(read_only), Predictor(read_only, budget_bytes=0)
    expected, found = (
        [answer.top_k for answer in one.predict(PICTURES, tasks=ASKED, batch_size=4)]
        for one in (generous, none)
    )
    assert found == expected
    assert none.residents.residency().versions == 0
    assert none.residents.residency().loads > generous.residents.residency().loads
    assert generous.residents.residency().versions == len(TASKS) + 1


def test_a_version_from_files_stays_when_its_folder_is_gone(registry: Registry) -> None:
    predictor = Predictor(registry, budget_bytes=0)
    version = registry.resolve("bugs@1")
    predictor.load_files(version, registry.read(version))
    before = predictor.predict(PICTURES[:1], task="bugs")[0].top_k
    (version.path / "adapter_model.safetensors").unlink()
    predictor.predict(PICTURES[:1], task="colours")  # which would have evicted it
    assert predictor.predict(PICTURES[:1], task="bugs")[0].top_k == before


def test_an_abandoned_stream_releases_its_version(read_only: Registry) -> None:
    predictor = Predictor(read_only)
    stream = predictor.stream(PICTURES, task="bugs", batch_size=1)
    next(stream)
    assert predictor.residents.residency().readers == 1
    stream.close()  # type: ignore[attr-defined]  # it is a generator
    assert predictor.residents.residency().readers == 0
