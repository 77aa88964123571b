"""What the report says of a router is what the router decides."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from adapterbank.report import routing
from adapterbank.report.routing import ALPHAS, routing_figures
from adapterbank.routing.record import RoutingRecord
from adapterbank.routing.router import Router
from tests.routing_samples import Array, World, auroc, built

WORLD = World(domain=2.0)
RECORDS = WORLD.records(4, each=30)
FEATURES = {f"t{task:03}": WORLD.draw(task, 15, part=5)[0] for task in range(4)}


def outcomes(router: Router, features: Array) -> Counter[str | None]:
    """Tasks that the router names, one by one; None where it abstains."""
    return Counter(one.task for one in router.route(features))


def test_confusion_counts_every_image_once_as_the_router_decides() -> None:
    router = built(RECORDS, alpha=0.3)
    router = replace(router, temperature=1e4)  # nobody is sure
    found = routing_figures(router, RECORDS, FEATURES)
    for row in found.confusion:
        judged = router.judge(FEATURES[row.task])
        away = judged.p_values <= 0.3
        kept = judged.chosen[~away]
        assert row.chosen == tuple((kept == task).sum() for task in range(4))
        assert row.abstained == away.sum()
        assert row.ambiguous == (~away).sum()
        assert row.total == len(FEATURES[row.task])
    assert sum(row.chosen[i] for i, row in enumerate(found.confusion)) > 100  # it works at all
    sure = routing_figures(built(RECORDS, alpha=0.3), RECORDS, FEATURES)
    assert [row.ambiguous for row in sure.confusion] == [0, 0, 0, 0]


def test_an_unknown_task_is_judged_by_a_router_that_never_had_it() -> None:
    found = routing_figures(built(RECORDS), RECORDS, FEATURES)
    assert [one.task for one in found.unknown] == list(RECORDS)
    for one in found.unknown:
        rest = {task: record for task, record in RECORDS.items() if task != one.task}
        lesser = built(rest)
        assert one.abstained == outcomes(lesser, FEATURES[one.task])[None]
        known = np.concatenate([lesser.judge(FEATURES[task]).known for task in rest])
        told = auroc(known, lesser.judge(FEATURES[one.task]).known)
        assert one.auroc == pytest.approx(told)


@pytest.mark.parametrize("reference", [None, WORLD.record(9)], ids=["pooled", "isolated"])
def test_curves_rise_and_meet_the_served_alpha(reference: RoutingRecord | None) -> None:
    router = built(RECORDS, reference=reference)
    found = routing_figures(router, RECORDS, FEATURES)
    assert found.unknown_curve is not None
    for curve in (found.known_curve, found.unknown_curve):
        assert len(curve) == len(ALPHAS)
        assert curve[0] == 0
        assert list(curve) == sorted(curve)
    at = ALPHAS.index(found.alpha)
    turned = [row.abstained / row.total for row in found.confusion]
    assert found.known_curve[at] == pytest.approx(np.mean(turned))
    unknown = [one.abstained / one.total for one in found.unknown]
    assert found.unknown_curve[at] == pytest.approx(np.mean(unknown))
    assert found.unknown_curve[at] > found.known_curve[at]


def test_tasks_without_images_here_are_no_rows_but_may_be_chosen() -> None:
    few = {task: FEATURES[task] for task in ("t000", "t002")}
    found = routing_figures(built(RECORDS), RECORDS, few)
    assert [row.task for row in found.confusion] == ["t000", "t002"]
    assert all(len(row.chosen) == 4 for row in found.confusion)
    assert [one.task for one in found.unknown] == ["t000", "t002"]


def test_a_router_of_one_task_has_no_unknown_one() -> None:
    one = {"t000": RECORDS["t000"]}
    found = routing_figures(built(one), one, FEATURES)
    assert found.unknown == ()
    assert found.unknown_curve is None
    assert len(found.confusion) == 1


def test_of_many_tasks_only_some_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "MOST_UNKNOWN", 2)
    found = routing_figures(built(RECORDS), RECORDS, FEATURES)
    assert [one.task for one in found.unknown] == ["t000", "t001"]
    assert len(found.confusion) == 4


def test_a_lesser_router_is_of_the_same_blocks() -> None:
    few = RoutingRecord(layers={12: RECORDS["t000"].layers[12]})
    records = RECORDS | {"t000": few}
    features = {task: rows[:, 1:] for task, rows in FEATURES.items()}
    found = routing_figures(built(records), records, features)
    assert [one.task for one in found.unknown] == list(RECORDS)


def test_without_all_records_no_lesser_router_is_made_up() -> None:
    some = {task: record for task, record in RECORDS.items() if task != "t003"}
    found = routing_figures(built(RECORDS), some, FEATURES)
    assert found.unknown == ()
