"""What is read of a version for tables and reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterbank.errors import IntegrityError
from adapterbank.records import Score
from adapterbank.registry.summary import score_of, summarise
from tests import router_bank

COUNT = {"correct": 9, "total": 10}


@pytest.mark.parametrize(
    ("metrics", "path", "expected"),
    [
        ({"test": COUNT}, ("test",), Score(correct=9, total=10)),
        ({"linear_probe": {"test": COUNT}}, ("linear_probe", "test"), Score(correct=9, total=10)),
        ({}, ("test",), None),
        ({"linear_probe": 3}, ("linear_probe", "test"), None),
        ({"test": {"correct": 9}}, ("test",), None),
        ({"test": {"correct": "9", "total": 10}}, ("test",), None),
    ],
    ids=["flat", "nested", "no figures", "no mapping", "no total", "no number"],
)
def test_a_score_is_found_or_is_none(
    metrics: dict[str, Any], path: tuple[str, ...], expected: Score | None
) -> None:
    assert score_of(metrics, *path) == expected


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "in part"])
def test_a_version_says_what_it_is_and_a_changed_one_is_refused(
    tmp_path: Path, *, whole: bool
) -> None:
    registry = router_bank.colour_registry(tmp_path / "registry")
    version = registry.resolve("reds")
    summary = summarise(version, whole=whole)
    assert summary.config.task == "reds"
    assert score_of(summary.metrics, "test") is not None
    assert summary.sizes == {path.name: path.stat().st_size for path in version.path.iterdir()}
    assert replace(summary, metrics={}).parameters is None
    path = version.path / "metrics.json"
    path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    with pytest.raises(IntegrityError, match=r"metrics\.json"):
        summarise(version, whole=whole)
