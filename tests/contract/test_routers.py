"""What every router of the catalogue keeps to."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from adapterbank import catalog
from adapterbank.routing.router import build
from adapterbank.routing.scores import p_values
from benchmarks.router import calibrate
from benchmarks.routers.base import Queries, RouterModule, Sources
from tests.routing_samples import Array, World

ROUTERS = "benchmarks.routers"
WORLD = World(domain=3.0)
TASKS = 4

each_router = pytest.mark.parametrize("name", catalog.names(ROUTERS))


def module(name: str) -> RouterModule:
    return cast("RouterModule", catalog.load(ROUTERS, name, kind="router"))


def unit(features: Array) -> Array:
    scaled: Array = features / np.linalg.norm(features, axis=2, keepdims=True)
    return scaled


def sources(*, backwards: bool = False) -> Sources:
    """Everything any router may need, inserted in one order or the other."""
    records = WORLD.records(TASKS)
    order = sorted(records, reverse=backwards)
    drawn = {f"t{task:03}": WORLD.draw(task, 20) for task in range(TASKS)}
    return Sources(
        records={task: records[task] for task in order},
        features={task: (unit(drawn[task][0]), drawn[task][1]) for task in order},
    )


def queries(task: int, each: int = 10) -> Queries:
    """Images of a task, and logits of heads that know their own."""
    features, labels = WORLD.draw(task, each, part=2)
    logits = {}
    for head in range(TASKS):
        logits[f"t{head:03}"] = 0.1 * features[:, 0, :4]
        if head == task:
            logits[f"t{head:03}"] = 9.0 * np.eye(4)[labels]
    return Queries(features=unit(features), logits=logits)


@each_router
def test_it_finds_the_task_of_easy_images(name: str) -> None:
    router = module(name).build(sources())
    for task in range(TASKS):
        scored = router.score(queries(task))
        assert scored.tasks.shape == (40, TASKS)
        assert scored.familiar.shape == (40, TASKS)
        assert scored.known.shape == (40,)
        assert np.isfinite(scored.tasks).all()
        assert np.mean(scored.chosen == task) > 0.9


@each_router
def test_the_order_of_tasks_changes_no_bit(name: str) -> None:
    one, other = (module(name).build(sources(backwards=b)).score(queries(1)) for b in (False, True))
    np.testing.assert_array_equal(one.tasks, other.tasks)
    np.testing.assert_array_equal(one.known, other.known)


def test_the_benchmark_rejects_what_the_bank_s_own_router_rejects() -> None:
    records = WORLD.records(TASKS)
    built = module("mahalanobis").build(Sources(records=records))
    calibration = calibrate(built, records, lambda rows: Queries(features=rows))
    own = build(records, backbone="")
    for task in (0, TASKS):  # one that it knows, and a stranger
        features = unit(WORLD.draw(task, 50, part=2)[0])
        scored, judged = built.score(Queries(features=features)), own.judge(features)
        found = p_values(calibration, scored.chosen, scored.known)
        np.testing.assert_allclose(scored.known, judged.known, rtol=1e-9)  # float64, other sums
        np.testing.assert_array_equal(found <= own.alpha, judged.p_values <= own.alpha)


@each_router
def test_it_needs_what_it_says(name: str) -> None:
    needs = module(name).NEEDS
    assert needs
    assert set(needs) <= {"records", "features", "logits"}
    full, asked = sources(), queries(0)
    if "features" not in needs or "records" in needs:
        full = Sources(records=full.records)
    if "logits" not in needs:
        asked = Queries(features=asked.features)
    assert module(name).build(full).score(asked).known.shape == (40,)
