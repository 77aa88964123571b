"""What a configuration costs: counted without training, measured once for each shape."""

from __future__ import annotations

import pytest

from adapterbank.methods.base import Folded, count_parameters
from adapterbank.search.cost import CostTable
from tests import tiny

SMALL = {"prompts": 2, "rank": 2, "kernel": 1}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Folded]:
    """Return what was timed; a forward takes one more than was timed before."""
    found: list[Folded] = []

    def measure(self: CostTable, folded: Folded) -> float:
        del self
        found.append(folded)
        return float(len(found))

    monkeypatch.setattr(CostTable, "_measure", measure)
    return found


@pytest.mark.parametrize("method", ["vapt", "vpt_deep", "vpt_shallow"])
def test_the_count_is_that_of_an_adapter_without_its_head(method: str) -> None:
    backbone = tiny.backbone(next(iter(tiny.KINDS)))
    expected = count_parameters(tiny.adapter(method, backbone))[0]
    hyper = tiny.adapter(method, backbone).config.model_dump()
    costs = CostTable(backbone)
    assert costs.count(method, hyper, 5) == costs.count(method, hyper, 50) == expected > 0


def test_what_does_not_fit_the_backbone_has_no_count() -> None:
    assert (
        CostTable(tiny.backbone(next(iter(tiny.KINDS)))).count("vapt", {**SMALL, "kernel": 64}, 5)
        is None
    )


def test_equal_shapes_are_measured_once(measured: list[Folded]) -> None:
    costs = CostTable(tiny.backbone(next(iter(tiny.KINDS))))
    first = costs.latency("vapt", SMALL, 5)
    assert costs.latency("vapt", {**SMALL, "kernel": 2}, 5) == first  # gone when it is folded
    assert len(measured) == 1
    assert costs.latency("vapt", {**SMALL, "prompts": 4}, 5) != first
    assert len(measured) == 2


def test_a_later_process_measures_nothing_again(measured: list[Folded]) -> None:
    costs = CostTable(tiny.backbone(next(iter(tiny.KINDS))))
    ratio = costs.latency("vapt", SMALL, 5)
    again = CostTable(tiny.backbone(next(iter(tiny.KINDS))), costs.as_json())
    assert again.latency("vapt", SMALL, 5) == ratio
    assert len(measured) == 1


def test_a_ratio_is_measured_for_real() -> None:
    assert 0.2 < CostTable(tiny.backbone(next(iter(tiny.KINDS)))).latency("vapt", SMALL, 5) < 50
