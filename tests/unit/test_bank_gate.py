"""What a newcomer does to the other tasks' images, on routers of drawn features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adapterbank.config.gates import GateConfig
from adapterbank.config.router import RouterConfig
from adapterbank.inference.router_versions import RouterPlan
from adapterbank.registry.verdicts import RoutedTask
from adapterbank.release.bank_gate import paired_routers, route_task, routing_failures
from adapterbank.release.compare import compare_answers
from adapterbank.routing.record import RoutingRecord
from adapterbank.routing.router import build
from tests.routing_samples import BACKBONE, World

WORLD = World(domain=3.0)
GATES = GateConfig()


def routed(*, own_again: bool) -> RoutedTask:
    """Add a task to two others: one of its own domain, or one that looks like the first."""
    records = WORLD.records(2)
    added = {"a-new": WORLD.record(0 if own_again else 7)}
    before, after = (build(one, backbone=BACKBONE) for one in (records, records | added))
    features, _ = WORLD.draw(0, each=25, part=3)
    return route_task("t000", features, before, after)


def abstaining(before: int, now: int, total: int = 100) -> RoutedTask:
    """Make a task of which only abstentions change."""
    right, order = np.ones(total, dtype=bool), np.arange(total)
    same = compare_answers(right, right)
    kept = compare_answers(order >= now, order >= before)
    return RoutedTask(
        task="pets", total=total, recall=same, right=(total, total),
        abstained=(before, now), p_abstained=kept.p, alpha=0.05,
    )  # fmt: skip


def test_a_task_of_a_domain_of_its_own_takes_no_images() -> None:
    found = routed(own_again=False)
    assert found.right == (100, 100)
    assert found.recall.difference == 0
    assert routing_failures(GATES, [found], allowed=0.005) == ()


def test_a_task_that_looks_like_another_takes_its_images_and_is_refused_with_the_numbers() -> None:
    found = routed(own_again=True)
    assert found.right[0] == 100
    assert found.right[1] < 50
    (failure,) = routing_failures(GATES, [found], allowed=0.005)
    assert failure.gate == "max_routing_drop"
    for number in (f"{found.right[1]} of 100 images of t000", "it recognises 100"):
        assert number in failure.reason
    assert routing_failures(GATES, [found], allowed=1.0) == ()


def test_a_newcomer_is_not_blamed_for_blocks_that_its_record_has_not() -> None:
    """A bank that changes over to other blocks judges its new versions one by one."""
    world = World(domain=0.0, strongest=3.0)
    before = world.records(4)
    again = {12: before["t003"].layers[12], 9: world.record(3).layers[6]}
    after = before | {"t003": RoutingRecord(layers=dict(sorted(again.items())))}
    plan = RouterPlan(backbone=BACKBONE, config=RouterConfig())
    routers = paired_routers(plan, before, after)
    assert routers is not None
    assert [router.blocks for router in routers] == [(12,), (12,)]
    features, _ = world.draw(0, each=50, part=3)
    found = route_task("t000", features[:, 1:], *routers)
    assert found.recall.difference == 0
    alone = [plan.build(records).judge(rows).chosen == 0 for records, rows in
             ((before, features), (after, features[:, 1:]))]  # fmt: skip
    assert alone[0].mean() > alone[1].mean() + 0.02  # what it would have been blamed for
    assert paired_routers(plan, {}, after) is None


def test_an_accident_of_few_images_is_no_loss() -> None:
    right = np.ones(100, dtype=bool)
    now = right.copy()
    now[:4] = False
    one = replace(abstaining(0, 0), recall=compare_answers(now, right), right=(100, 96))
    assert one.recall.p > GATES.alpha
    assert routing_failures(GATES, [one], allowed=0.005) == ()


@pytest.mark.parametrize(
    ("before", "now", "refused"),
    [(5, 11, False), (5, 12, True), (12, 12, False), (11, 13, False), (100, 90, False)],
)
def test_more_false_abstentions_than_alpha_and_2_points_allow_are_refused(
    before: int, now: int, refused: bool
) -> None:
    """11 of 100 are no surprise at 7 %, 12 are; two more may be an accident."""
    failures = routing_failures(GATES, [abstaining(before, now)], allowed=0.005)
    assert [one.gate for one in failures] == ["abstention"] * refused
    if refused:
        assert f"reject {now} of 100 images of pets" in failures[0].reason
        assert "7 % are allowed" in failures[0].reason
