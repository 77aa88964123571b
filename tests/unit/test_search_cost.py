"""What a configuration costs: counted without training, measured once for each shape."""

from __future__ import annotations

import pytest

from adapterbank.methods.base import Folded, count_parameters
from adapterbank.search import outcome
from adapterbank.search.outcome import Costs
from tests import tiny

SMALL = {"prompts": 2, "rank": 2, "kernel": 1}


def costs_of(
    method: str = "vapt", *, classes: int = 5, latencies: dict[str, float] | None = None
) -> Costs:
    backbone = tiny.backbone(next(iter(tiny.KINDS)))
    return Costs(backbone, method, {}, classes, latencies)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Folded]:
    """Return what was timed; a forward takes one more than was timed before."""
    found: list[Folded] = []

    def measure(backbone: object, folded: Folded, *_: object) -> float:
        del backbone
        found.append(folded)
        return float(len(found))

    monkeypatch.setattr(outcome, "relative_latency", measure)
    return found


@pytest.mark.parametrize("method", ["vapt", "vpt_deep", "vpt_shallow"])
def test_the_count_is_that_of_an_adapter_without_its_head(method: str) -> None:
    adapter = tiny.adapter(method, tiny.backbone(next(iter(tiny.KINDS))))
    expected = count_parameters(adapter)[0]
    values = adapter.config.model_dump()
    few, many = costs_of(method, classes=5), costs_of(method, classes=50)
    assert few.count(values) == many.count(values) == expected > 0


def test_what_does_not_fit_the_backbone_has_no_count() -> None:
    assert costs_of().count({**SMALL, "kernel": 64}) is None


def test_what_the_task_pins_counts_and_how_a_trial_trains_does_not() -> None:
    backbone = tiny.backbone(next(iter(tiny.KINDS)))
    pinned = Costs(backbone, "vapt", {"rank": 2, "kernel": 1}, 5)
    assert pinned.count({"prompts": 2, "learning_rate": 0.5}) == costs_of().count(SMALL)


def test_equal_shapes_are_measured_once(measured: list[Folded]) -> None:
    costs = costs_of()
    first = costs.latency(SMALL)
    assert costs.latency({**SMALL, "kernel": 2}) == first  # gone when it is folded
    assert len(measured) == 1
    assert costs.latency({**SMALL, "prompts": 4}) != first
    assert len(measured) == 2


def test_a_later_process_measures_nothing_again(measured: list[Folded]) -> None:
    costs = costs_of()
    ratio = costs.latency(SMALL)
    assert costs_of(latencies=costs.latencies).latency(SMALL) == ratio
    assert len(measured) == 1


def test_a_ratio_is_measured_for_real() -> None:
    assert 0.2 < costs_of().latency(SMALL) < 50
