"""A router is a function of the set of its tasks, and keeps what it promises of strangers."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterbank.routing.record import RoutingRecord
from adapterbank.routing.router import Router
from adapterbank.routing.storage import pack_router, unpack_router
from tests.routing_samples import World, auroc, built

WORLD = World()
HARD = World(width=64, classes=5, domain=0.1, strongest=2.0)


@functools.cache
def records() -> dict[str, RoutingRecord]:
    """Records of eight tasks."""
    return WORLD.records(8)


def reference() -> RoutingRecord:
    return WORLD.record(500, each=80)


def bytes_of(tasks: list[str], fixed: RoutingRecord | None = None) -> dict[str, bytes]:
    """Build from these tasks, inserted in this order."""
    return pack_router(built({task: records()[task] for task in tasks}, reference=fixed))


@pytest.mark.parametrize("isolated", [False, True], ids=["pooled", "isolated"])
def test_twenty_orders_of_adding_and_removing_give_the_same_bytes(isolated: bool) -> None:
    fixed = reference() if isolated else None
    kept = sorted(records())[:5]
    expected = bytes_of(kept, fixed)
    generator = np.random.default_rng(0)
    for _ in range(20):
        order = [str(task) for task in generator.permutation(sorted(records()))]
        # Everything is added in some order, then what is too many is removed in another.
        added = dict.fromkeys(order)
        for task in generator.permutation(sorted(set(order) - set(kept))):
            del added[str(task)]
        assert bytes_of(list(added), fixed) == expected


def test_another_set_of_tasks_gives_other_bytes() -> None:
    kept = sorted(records())
    assert bytes_of(kept[:5]) != bytes_of(kept[:6]) != bytes_of(kept[1:6])


def test_an_isolated_router_scores_a_task_alike_whatever_others_there_are() -> None:
    few = built({task: records()[task] for task in sorted(records())[:3]}, reference=reference())
    many = built(dict(records()), reference=reference())
    features, _ = WORLD.draw(1, 30, part=3)
    for task in few.tasks:
        np.testing.assert_array_equal(few.parts[task].calibration, many.parts[task].calibration)
        np.testing.assert_array_equal(few.parts[task].prototypes, many.parts[task].prototypes)
    old = few.judge(features).scores
    new = many.judge(features).scores[:, : len(few.tasks)]
    np.testing.assert_allclose(old, new, atol=2e-6)  # rounded: matrix products have their ways


def test_a_pooled_router_does_move_when_tasks_come() -> None:  # so the test above means something
    few = built({task: records()[task] for task in sorted(records())[:3]})
    many = built(dict(records()))
    assert (few.parts["t000"].calibration != many.parts["t000"].calibration).any()


@settings(max_examples=15)
@given(rows=st.integers(1, 40), task=st.integers(0, 7))
def test_a_router_read_back_judges_with_the_same_bits(rows: int, task: int) -> None:
    router = built(dict(records()))
    again = unpack_router(pack_router(router), where="a test")
    features, _ = WORLD.draw(task, rows, part=5)
    assert again.route(features) == router.route(features)
    assert pack_router(again) == pack_router(router)


@settings(max_examples=10)
@given(power=st.integers(-8, 8))
def test_the_length_of_a_feature_does_not_matter(power: int) -> None:
    router = built(dict(records()))
    features, _ = WORLD.draw(2, 5, part=4)
    assert router.route(features * 2.0**power) == router.route(features)


def own_images(router: Router, world: World, tasks: int, each: int) -> tuple[list[float], float]:
    """p-values of fresh images of the known tasks, and the share that is routed right."""
    found, right = [], []
    for task in range(tasks):
        judged = router.judge(world.draw(task, each, part=11)[0])
        found += judged.p_values.tolist()
        right += (judged.chosen == task).tolist()
    return found, float(np.mean(right))


@functools.cache
def many_draws() -> tuple[list[float], float]:
    """Average over calibrations too, for the promise is about both: 24 tasks, 2,400 images."""
    world = World(domain=3.0)  # tasks apart, so that what is tested is the conformal promise
    calibrated = {f"t{task:03}": world.record(task, held=50) for task in range(24)}
    return own_images(built(calibrated), world, 24, 25)


def test_of_images_of_known_tasks_alpha_is_rejected() -> None:
    p_values, right = many_draws()
    assert len(p_values) >= 2000
    assert right > 0.99
    for alpha in (0.02, 0.05, 0.10, 0.20):
        assert np.mean(np.array(p_values) <= alpha) == pytest.approx(alpha, abs=0.015)


def test_p_values_of_known_images_are_uniform() -> None:
    p_values, _ = many_draws()
    expected = np.linspace(0, 1, 101)
    found = np.searchsorted(np.sort(p_values), expected, side="right") / len(p_values)
    assert np.abs(found - expected).max() < 0.04  # Kolmogorov's 1 % bound is 0.033 for 2,400


def test_the_shared_covariance_is_worth_what_the_study_found() -> None:
    """Random class splits without a domain shift: class means 45 %, shared covariance 97 %."""
    world, tasks = HARD, 12
    router = built(world.records(tasks))
    right, nearest, known = [], [], []
    for task in range(tasks):
        features, _ = world.draw(task, 20, part=2)
        judged = router.judge(features)
        right += (judged.chosen == task).tolist()
        known += judged.known.tolist()
        unit = features / np.linalg.norm(features, axis=2, keepdims=True)
        gaps = [
            ((unit[:, None, -1] - record.last.means) ** 2).sum(2).min(1)
            for record in world.records(tasks).values()
        ]
        nearest += (np.argmin(gaps, axis=0) == task).tolist()
    strangers = np.concatenate(
        [router.judge(world.draw(task, 20, part=2)[0]).known for task in range(100, 108)]
    )
    assert np.mean(right) > 0.95
    assert np.mean(right) > np.mean(nearest) + 0.4
    assert auroc(np.array(known), strangers) > 0.95
