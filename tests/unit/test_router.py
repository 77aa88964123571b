"""What a router answers, and what it refuses to be built from or asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from adapterbank.errors import BackboneMismatch, InputError, IntegrityError
from adapterbank.routing.metric import factorise, shrink
from adapterbank.routing.record import (
    RoutingRecord,
    as_record,
    read_record,
    task_record,
    triangle,
    unpack,
)
from adapterbank.routing.router import build
from adapterbank.routing.storage import CONFIG, TENSORS, pack_router, unpack_router
from tests.routing_samples import BACKBONE, World, built

WORLD = World(domain=3.0)


def test_images_of_known_tasks_are_named_and_strangers_are_not() -> None:
    router = built(WORLD.records(4))
    for task in range(4):
        routes = router.route(WORLD.draw(task, 10, part=2)[0])
        assert {route.task for route in routes} <= {f"t{task:03}", None}
        assert sum(route.outcome == "task" for route in routes) >= 30
    strangers = router.route(WORLD.draw(50, 10, part=2)[0])
    assert {route.outcome for route in strangers} == {"abstain"}
    assert {route.task for route in strangers} == {None}
    assert all(route.p_value <= 0.05 for route in strangers)


def test_a_route_says_how_sure_it_is() -> None:
    router = built(WORLD.records(4))
    (route,) = router.route(WORLD.draw(2, 1, part=3)[0][:1], top_k=4)
    names, shares = zip(*route.candidates, strict=True)
    assert sorted(names) == list(router.tasks)
    assert list(shares) == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0)
    assert route.margin == pytest.approx(shares[0] - shares[1])
    assert route.task == names[0] == "t002"


def test_two_tasks_of_the_same_images_are_ambiguous_and_named_as_twins() -> None:
    records = WORLD.records(3)
    records["zz"] = records["t001"]
    router = build(records, backbone=BACKBONE, sources={"t001": "a", "zz": "a", "t002": "b"})
    routes = router.route(WORLD.draw(1, 5, part=2)[0])
    known = [route for route in routes if route.outcome != "abstain"]
    assert len(known) >= 15
    for route in known:
        assert route.outcome == "ambiguous"
        assert route.task == "t001"  # the first by name
        assert [name for name, _ in route.candidates[:2]] == ["t001", "zz"]
        assert route.margin == 0.0
    assert router.twins == (("t001", "zz"),)


def test_a_router_of_one_task_still_rejects_strangers() -> None:
    router = built({"only": WORLD.record(0, each=40)})
    own, strange = WORLD.draw(0, 25, part=2)[0], WORLD.draw(9, 25, part=2)[0]
    rejected = [route.outcome == "abstain" for route in router.route(own)]
    assert np.mean(rejected) < 0.15
    assert {route.margin for route in router.route(own)} == {1.0}
    # Its own spread is all the background there is, which a stranger in fact leaves.
    known = router.judge(np.concatenate([own, strange])).known
    assert np.mean(known[:100]) > np.mean(known[100:])


def test_without_calibration_images_nothing_is_rejected() -> None:
    layers = {
        block: replace(layer, calibration=layer.calibration[:0])
        for block, layer in WORLD.record(0).layers.items()
    }
    router = built({"only": RoutingRecord(layers=layers)})
    assert {r.outcome for r in router.route(WORLD.draw(9, 2)[0])} == {"task"}


def test_a_task_of_one_image_a_class_can_join_others() -> None:
    router = built({**WORLD.records(3), "shots": WORLD.record(7, each=1)})
    judged = router.judge(WORLD.draw(7, 10, part=2)[0])
    assert np.mean(judged.chosen == router.tasks.index("shots")) > 0.7


def test_a_large_task_does_not_decide_the_metric_alone() -> None:
    small = WORLD.records(3)
    layers = {
        block: replace(layer, counts=layer.counts * 1000, scatter=layer.scatter * 1000)
        for block, layer in small["t000"].layers.items()
    }
    router = built({**small, "t000": RoutingRecord(layers=layers)})
    assert np.abs(router.judge(WORLD.draw(1, 5)[0]).scores).max() < 1e6
    rights = [router.judge(WORLD.draw(t, 20, part=2)[0]).chosen == t for t in range(3)]
    assert np.mean(rights) > 0.95


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf], ids=["zero", "nan", "inf"])
def test_a_feature_without_a_direction_is_refused_by_its_number(bad: float) -> None:
    features = WORLD.draw(0, 2)[0]
    features[3] = bad
    with pytest.raises(InputError, match="3"):
        built(WORLD.records(2)).route(features)


def test_another_backbone_is_refused_by_width_and_by_fingerprint() -> None:
    router = built(WORLD.records(2))
    with pytest.raises(BackboneMismatch, match="32 numbers"):
        router.route(np.ones((2, 2, 16)))
    with pytest.raises(BackboneMismatch, match="cdcdcdcd"):
        router.route(np.ones((2, 2, 32)), backbone="cd" * 32)
    with pytest.raises(BackboneMismatch, match="blocks 6 and 12"):
        router.route(np.ones((2, 1, 32)))
    with pytest.raises(BackboneMismatch, match="widths"):
        built({**WORLD.records(1), "other": World(width=16).record(0)})


def test_nothing_to_build_from_is_refused() -> None:
    with pytest.raises(InputError, match="at least one task"):
        build({}, backbone=BACKBONE)
    with pytest.raises(InputError, match="one image"):
        built({"shots": WORLD.record(0, each=1)})
    flat = torch.ones(8, 1, 4)
    record = as_record(task_record(flat, torch.arange(8) % 2, 2, flat, (3,)), where="flat")
    with pytest.raises(InputError, match="do not scatter"):
        built({"flat": record})


def test_top_k_starts_at_one() -> None:
    with pytest.raises(InputError, match="top_k"):
        built(WORLD.records(1)).route(WORLD.draw(0, 1)[0], top_k=0)


@pytest.mark.parametrize(
    "name",
    [
        "counts", "means", "means_step", "factor", "factor_step", "calibration", "calibration_grid",
    ],
)  # fmt: skip
def test_a_record_that_lacks_something_is_refused(name: str) -> None:
    features, labels = WORLD.draw(0, 3)
    tensors = torch.from_numpy(features)
    arrays = task_record(tensors, torch.from_numpy(labels), 4, tensors, WORLD.blocks)
    with pytest.raises(IntegrityError, match=name):
        as_record({k: v for k, v in arrays.items() if k != name}, where="x")
    with pytest.raises(IntegrityError, match="shapes"):
        as_record(arrays | {name: arrays[name][:-1, ...][None]}, where="x")


def test_a_record_that_names_no_blocks_or_wrong_ones_is_refused() -> None:
    features, labels = WORLD.draw(0, 3)
    tensors = torch.from_numpy(features)
    arrays = task_record(tensors, torch.from_numpy(labels), 4, tensors, WORLD.blocks)
    with pytest.raises(InputError, match="before records named"):
        as_record({k: v for k, v in arrays.items() if k != "blocks"}, where="x")
    for blocks in ([12, 6], [6, 6], [0, 12]):
        with pytest.raises(IntegrityError, match="ascending"):
            as_record(arrays | {"blocks": np.array(blocks)}, where="x")


@pytest.mark.parametrize("earlier", [{1}, {0, 1, 2, 3}], ids=["one of four", "all"])
def test_records_of_both_layouts_mix_and_give_nearly_the_same_answers(earlier: set[int]) -> None:
    records = WORLD.records(4)
    before = {f"t{task:03}": WORLD.record(task, earlier=True) for task in earlier}
    now, then = built(records), built(records | before)
    images = np.concatenate([WORLD.draw(task, 25, part=2)[0] for task in (0, 1, 2, 3, 50)])
    one, other = now.judge(images), then.judge(images)
    assert np.mean(one.chosen != other.chosen) < 0.01
    # One of 64 held-out images counts for 0.015.
    assert np.abs(one.p_values - other.p_values).mean() < 0.01
    assert np.mean((one.p_values <= 0.05) != (other.p_values <= 0.05)) < 0.02


def test_a_router_is_of_the_blocks_that_all_records_have() -> None:
    records = WORLD.records(3)
    last = RoutingRecord(layers={12: records["t001"].layers[12]})
    assert built(records).blocks == (6, 12)
    router = built({**records, "t001": last})
    assert router.blocks == (12,)
    assert router.judge(WORLD.draw(0, 5)[0][:, 1:]).scores.shape == (20, 3)
    other = RoutingRecord(layers={3: records["t001"].layers[12]})
    with pytest.raises(BackboneMismatch, match="no block in common"):
        built({**records, "t001": other})


def test_two_blocks_know_more_than_either() -> None:
    world, tasks = World(domain=0.0, strongest=3.5), 6
    records = world.records(tasks)
    right = {}
    for blocks in ((6,), (12,), (6, 12)):
        chosen = {
            task: RoutingRecord(layers={block: record.layers[block] for block in blocks})
            for task, record in records.items()
        }
        router, places = built(chosen), [world.blocks.index(block) for block in blocks]
        found = [
            router.judge(world.draw(task, 30, part=2)[0][:, places]).chosen == task
            for task in range(tasks)
        ]
        right[blocks] = float(np.mean(found))
    assert right[6, 12] > max(right[6,], right[12,]) + 0.02


def test_bytes_that_are_no_record_are_refused() -> None:
    with pytest.raises(IntegrityError, match="not a usable"):
        read_record(b"12345678", where="x")


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
def test_a_damaged_router_is_refused(name: str) -> None:
    files = pack_router(built(WORLD.records(2)))
    for damaged in (files[name][: len(files[name]) // 2], b"", files[name][5:]):
        with pytest.raises(IntegrityError, match=f"x/{name}"):
            unpack_router(files | {name: damaged}, where="x")
    with pytest.raises(IntegrityError, match="not a router"):
        unpack_router({k: v for k, v in files.items() if k != name}, where="x")


def test_a_router_with_the_tensors_of_another_is_refused() -> None:
    two, three = (pack_router(built(WORLD.records(count))) for count in (2, 3))
    with pytest.raises(IntegrityError, match="prototypes"):
        unpack_router({**two, TENSORS: three[TENSORS]}, where="x")


def test_packing_a_triangle_and_unpacking_it_changes_nothing() -> None:
    matrix = np.arange(16.0).reshape(4, 4)
    matrix = matrix + matrix.T
    np.testing.assert_array_equal(unpack(triangle(matrix), 4), matrix)


def test_shrinkage_is_strong_with_few_images_and_weak_with_many() -> None:
    generator = np.random.default_rng(0)
    scale = np.exp(generator.uniform(-1, 1, 20))
    rhos = []
    for count in (10, 100, 10_000):
        rows = generator.standard_normal((count, 20)) * scale
        shrunk, rho = shrink(np.cov(rows.T, bias=True), count)
        assert np.linalg.eigvalsh(shrunk).min() > 0
        rhos.append(rho)
    assert rhos == sorted(rhos, reverse=True)
    assert rhos[0] > 0.3
    assert rhos[2] < 0.02


def test_a_singular_covariance_gets_the_least_jitter_that_helps() -> None:
    rows = np.random.default_rng(0).standard_normal((3, 8))
    factor, jitter = factorise(rows.T @ rows)
    np.testing.assert_allclose(factor @ factor.T, rows.T @ rows, atol=1e-4)
    assert jitter == 1e-6
    with pytest.raises(InputError, match="not positive"):
        factorise(np.diag([1.0, -0.5]))
