"""Which champions may be parents, in which order, of a registry that nobody trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from adapterbank.errors import InputError
from adapterbank.inference.artifact import ROUTING, load_adapter
from adapterbank.pipeline import parents
from adapterbank.pipeline.parents import Target, rank, score_one, seen_images
from adapterbank.pipeline.warm_start import epochs_to, is_better
from adapterbank.records import Score
from adapterbank.registry.adapter_config import AdapterConfig, parse_adapter_config
from adapterbank.registry.store import Registry
from adapterbank.routing.record import as_record, task_record
from adapterbank.training.evaluation import extract_frozen
from tests import served
from tests.registry_samples import config_of
from tests.router_bank import COLOURS, colour_registry, split


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Return a registry of three colours, each with a champion."""
    return colour_registry(tmp_path / "registry")


@pytest.fixture(scope="module")
def target() -> Target:
    """Return a task of other images, whose adapter has the colours' method and shapes."""
    train, held = split("whites", 20), split("whites", 20, 700)
    blocks = (served.backbone().traits.blocks,)
    features = [extract_frozen(served.backbone(), part, blocks) for part in (train, held)]
    return Target(
        task="whites",
        method="vapt",
        start=served.adapter(9, classes=("thin", "wide")),
        record=as_record(
            task_record(features[0], train.labels, 2, features[1], blocks), where="whites"
        ).last,
        train=train,
        digest="d" * 64,
    )


def test_the_best_h_score_is_the_parent(registry: Registry, target: Target) -> None:
    found = rank(registry, served.backbone(), target)
    scores = [one.score for one in found.candidates]
    assert {one.version.task for one in found.candidates} == set(COLOURS)
    assert None not in scores
    assert scores == sorted(scores, key=lambda score: -(score or 0.0))
    assert len(set(scores)) == len(scores)
    assert found.parent == found.candidates[0]
    assert (found.images, found.left_out, found.damaged) == (40, {}, ())
    assert 0.0 < found.bare <= 1.0


def test_a_score_is_that_of_the_version_s_own_adapter(registry: Registry, target: Target) -> None:
    found = rank(registry, served.backbone(), target)
    for candidate in found.candidates:
        version = candidate.version
        folded = load_adapter(registry.read(version), served.backbone(), where="a test").folded
        expected = parents.h_score(served.backbone(), target.train, folded)
        assert candidate.score == pytest.approx(expected, rel=1e-9)
        (alone,) = score_one(registry, version, served.backbone(), target).candidates
        assert alone == candidate


def test_only_the_nearest_are_run(
    registry: Registry, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = rank(registry, served.backbone(), target)
    monkeypatch.setattr(parents, "KEPT", 2)
    found = rank(registry, served.backbone(), target)
    near = sorted(one.distance for one in everything.candidates)
    assert sorted(one.distance for one in found.candidates[:2]) == near[:2]
    assert (found.candidates[2].distance, found.candidates[2].score) == (near[2], None)


def test_at_most_so_many_images_are_run(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parents, "IMAGES", 10)
    chosen = parents.some(target.train)
    assert len(chosen) == 10
    assert chosen.labels.tolist().count(0) == 5
    assert parents.some(target.train).images.equal(chosen.images)


def test_a_ranking_changes_nothing_and_is_the_same_again(
    registry: Registry, target: Target
) -> None:
    before = {path: path.read_bytes() for path in registry.root.rglob("*") if path.is_file()}
    assert rank(registry, served.backbone(), target) == rank(registry, served.backbone(), target)
    after = {path: path.read_bytes() for path in registry.root.rglob("*") if path.is_file()}
    assert after == before


def test_the_task_s_own_champion_is_no_candidate(registry: Registry, target: Target) -> None:
    found = rank(registry, served.backbone(), replace(target, task="reds"))
    assert {one.version.task for one in found.candidates} == set(COLOURS) - {"reds"}


def test_a_retired_task_is_no_candidate(registry: Registry, target: Target) -> None:
    registry.retire("reds")
    found = rank(registry, served.backbone(), target)
    assert "reds" not in {one.version.task for one in found.candidates}


@pytest.mark.parametrize("name", ["adapter_model.safetensors", ROUTING, "README.md"])
def test_a_damaged_champion_is_left_out_and_named(
    registry: Registry, target: Target, name: str
) -> None:
    path = registry.resolve("reds").path / name
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    found = rank(registry, served.backbone(), target)
    assert {one.version.task for one in found.candidates} == set(COLOURS) - {"reds"}
    assert found.damaged == ("reds",)
    assert name in found.left_out["reds"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": "vpt_deep"}, "its method is vapt, not vpt_deep"),
        ({"start": served.adapter(9, hyper={"prompts": 3})}, "other shapes"),
        (
            {"method": "linear", "start": served.adapter(9, "linear")},
            "its method is vapt, not linear",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_left_out(
    registry: Registry, target: Target, changes: dict[str, object], reason: str
) -> None:
    found = rank(registry, served.backbone(), replace(target, **changes))  # type: ignore[arg-type]
    assert (found.candidates, found.parent, found.damaged) == ((), None, ())
    assert all(reason in told for told in found.left_out.values())
    assert found.left_out.keys() == set(COLOURS)


def config(fit: str | None, digest: str, task: str = "reds") -> AdapterConfig:
    plain = config_of(task) | {"data": {"source": "folder://x", "digest": digest}}
    plain["train"] = {} if fit is None else {"fit": fit}
    return parse_adapter_config(json.dumps(plain).encode())


@pytest.mark.parametrize(
    ("task", "fit", "digest", "seen"),
    [
        ("reds", "train", "same", False),
        ("reds", None, "same", False),
        ("reds", "train+val", "same", True),
        ("reds", "train", "other", True),
        ("blues", "train+val", "same", True),
        ("blues", "train", "same", False),
        ("blues", "train+val", "other", False),
    ],
)
def test_a_version_that_saw_validation_images_is_no_fair_parent(
    task: str, fit: str | None, digest: str, *, seen: bool
) -> None:
    found = seen_images(config(fit, digest, task), "reds", "same")
    assert (found is not None) == seen


def test_a_tie_is_the_scratch_arm_s() -> None:
    five, six = Score(correct=5, total=9), Score(correct=6, total=9)
    assert is_better(six, five)
    assert not is_better(five, five)
    assert not is_better(five, six)


@pytest.mark.parametrize(
    ("reached", "epoch"), [((5, 6, 7), 2), ((6, 1), 1), ((1, 2), None), ((), None)]
)
def test_an_arm_is_as_fast_as_its_first_epoch_that_is_as_good(
    reached: tuple[int, ...], epoch: int | None
) -> None:
    assert epochs_to(6, reached) == epoch


def test_a_version_without_a_record_cannot_be_scored(registry: Registry, target: Target) -> None:
    made = served.adapter()
    files = served.pack(made, served.describe("bare", made))
    bare = registry.register("bare", {n: data for n, data in files.items() if n != ROUTING})
    with pytest.raises(InputError, match="no routing record"):
        score_one(registry, bare, served.backbone(), target)
