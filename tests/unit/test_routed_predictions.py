"""``task="auto"``: each image under its own task, in order, or an answer that it has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.errors import ImageError, InputError, UnknownName
from adapterbank.inference.decoding import ImageInput
from adapterbank.inference.predictor import Predictor
from adapterbank.inference.router_versions import rebuild_router
from adapterbank.records import ROUTER, Abstention, Prediction, Route
from adapterbank.registry.store import Registry
from tests.router_bank import COLOURS, colour_registry, picture, publish, strange


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Return a registry with a router of three tasks."""
    made = colour_registry(tmp_path_factory.mktemp("routed"))
    rebuild_router(made, reason="a test")
    return made


def test_each_image_is_answered_under_its_own_task(registry: Registry) -> None:
    predictor = Predictor(registry)
    names = [task for number in range(8) for task in COLOURS]
    images = [picture(task, i % 2, 900 + i) for i, task in enumerate(names)]
    answers = predictor.predict(images, task="auto", top_k=1, batch_size=7)
    known = [(a, task) for a, task in zip(answers, names, strict=True) if isinstance(a, Prediction)]
    assert len(known) >= 20  # 5 % may be rejected
    assert [a.image for a in answers] == [f"image {i}" for i in range(24)]
    digest = registry.resolve(ROUTER).digest
    for answer, task in known:
        assert answer.task == task
        assert answer.route is not None
        assert (answer.route.task, answer.route.router) == (task, digest)
        assert answer.digest == registry.resolve(task).digest


def test_an_answer_is_that_of_the_task_named_outright(registry: Registry) -> None:
    predictor = Predictor(registry)
    images = [picture("reds", i % 2, 700 + i) for i in range(6)]
    routed = [a for a in predictor.predict(images, task="auto") if isinstance(a, Prediction)]
    assert routed
    for answer in routed:
        index = int(answer.image.removeprefix("image "))
        (named,) = predictor.predict([images[index]], task="reds")
        assert named.label == answer.label
        assert named.probability == pytest.approx(answer.probability, abs=1e-5)
        assert named.route is None


def test_naming_a_task_gives_the_same_bits_whether_there_is_a_router(
    registry: Registry, tmp_path: Path
) -> None:
    bare = colour_registry(tmp_path)
    images = [picture("greens", i % 2, i) for i in range(5)]
    with_router, without = (
        [(a.label, a.probability, a.top_k, a.digest) for a in Predictor(r).predict(
            images, task="greens")] for r in (registry, bare)
    )  # fmt: skip
    assert with_router == without


def test_an_image_of_no_task_gets_an_answer_that_says_so(registry: Registry) -> None:
    images = [picture("reds", 0, 3000), strange(), picture("blues", 0, 3001)]
    answers = Predictor(registry).predict(images, task="auto")
    assert isinstance(answers[1], Abstention)
    assert answers[1].image == "image 1"
    assert answers[1].route.outcome == "abstain"
    assert answers[1].route.task is None
    assert answers[1].route.p_value <= 0.05
    assert {name for name, _ in answers[1].route.candidates} == set(COLOURS)


def test_bad_images_keep_their_place(registry: Registry, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    images: list[ImageInput] = [bad, picture("reds", 0, 3000), bad]
    answers = list(Predictor(registry).stream(images, task="auto"))
    assert [isinstance(answer, ImageError) for answer in answers] == [True, False, True]
    routes = list(Predictor(registry).route(images))
    assert [isinstance(found, Route) for _, found in routes] == [False, True, False]
    assert [name for name, _ in routes] == [str(bad), "image 1", str(bad)]
    assert [isinstance(a, ImageError) for a in Predictor(registry).stream([bad], task="auto")] == [
        True
    ]


def test_routing_takes_one_pass_however_many_tasks(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    embed = TimmViT.embed

    def counted(self: TimmViT, images: torch.Tensor) -> torch.Tensor:
        passes.append(len(images))
        return embed(self, images)

    predictor = Predictor(registry)
    predictor.load("reds")  # and the backbone
    monkeypatch.setattr(TimmViT, "embed", counted)
    routes = list(predictor.route([picture(task, 0, 1) for task in COLOURS], top_k=2))
    assert passes == [3]
    assert all(isinstance(found, Route) and len(found.candidates) == 2 for _, found in routes)


def test_a_removed_task_answers_no_more_though_the_router_knows_it(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path, "reds", "greens")
    rebuild_router(registry, reason="a test")
    predictor = Predictor(registry)
    images = [picture("reds", 0, 900 + i) for i in range(4)]
    assert "reds" in {a.task for a in predictor.predict(images, task="auto")
                      if isinstance(a, Prediction)}  # fmt: skip
    registry.retire("reds")
    after = predictor.predict(images, task="auto")
    assert {a.task for a in after if isinstance(a, Prediction)} <= {"greens"}
    registry.retire("greens")
    with pytest.raises(InputError, match="none of the router's tasks") as caught:
        predictor.predict(images, task="auto")
    assert caught.value.fix == "adapterbank router rebuild"


def test_a_new_router_is_asked_as_soon_as_it_is_served(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path, "reds")
    rebuild_router(registry, reason="a test")
    predictor = Predictor(registry)
    image = [picture("greens", 0, 5)]
    (before,) = predictor.predict(image, task="auto")
    publish(registry, "greens", 2)
    rebuild_router(registry, reason="a test")
    (after,) = predictor.predict(image, task="auto")
    assert not isinstance(before, Prediction) or before.task == "reds"
    assert isinstance(after, Prediction)
    assert after.task == "greens"


def test_without_a_router_auto_says_what_to_do(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path, "reds")
    with pytest.raises(UnknownName, match="router") as caught:
        Predictor(registry).predict([strange()], task="auto")
    assert caught.value.fix == "adapterbank router rebuild"


@pytest.mark.parametrize("bad", [{"top_k": 0}, {"batch_size": 0}], ids=str)
def test_counts_start_at_one(registry: Registry, bad: dict[str, int]) -> None:
    with pytest.raises(InputError, match="start at 1"):
        list(Predictor(registry).route([strange()], **bad))
