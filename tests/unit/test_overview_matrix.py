"""The accuracy matrix is read strictly, and its metrics are those of ``continual/metrics.py``."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from adapterbank.continual.overview_matrix import Matrix, Right, read_matrix, summary
from adapterbank.errors import IntegrityError
from tests.overview_samples import steps, write_matrix

TASKS = ("a", "b", "c")


def document() -> dict[str, Any]:
    """A file of three steps."""
    found: dict[str, Any] = json.loads(
        json.dumps({"schema": 1, "steps": [asdict(one) for one in steps(TASKS)]})
    )
    return found


def written(path: Path, content: dict[str, Any]) -> Path:
    """Write it, and return the bank."""
    write_matrix(path / "reports" / "matrix.json", json.dumps(content))
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert read_matrix(written(tmp_path, document())).steps == steps(TASKS)


def test_no_file_is_no_step(tmp_path: Path) -> None:
    assert read_matrix(tmp_path) == Matrix()


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda d: d.update(schema=2), "schema"),
        (lambda d: d["steps"][1].update(step=2), "step 2 stands where 1 was"),
        (lambda d: d["steps"][1].update(extra=2), "extra"),
        (lambda d: d["steps"][1].pop("routed"), "routed"),
        (
            lambda d: d["steps"][1]["oracle"].update(a={"correct": 5, "total": 4}),
            "5 of 4 in oracle",
        ),
        (lambda d: d["steps"][1]["routed"].update(a={"correct": 0.5, "total": 4}), "routed"),
        (lambda d: d["steps"][1]["identity"].update(a={"correct": -1, "total": 4}), "identity"),
        (lambda d: d["steps"][1]["abstained"].update(a={"correct": 0, "total": 0}), "abstained"),
        (lambda d: d["steps"][0]["champions"]["a"].update(digest="ab"), "digest"),
    ],
)
def test_a_damaged_matrix_is_refused_with_the_place(tmp_path: Path, harm: Any, told: str) -> None:  # noqa: ANN401  # a lambda
    content = document()
    harm(content)
    with pytest.raises(IntegrityError, match=told):
        read_matrix(written(tmp_path, content))


def test_metrics_are_those_of_the_counts() -> None:
    found = summary(Matrix(steps=steps(TASKS, lost=3)))
    assert (found["steps"], found["tasks"]) == (3, 3)
    assert found["oracle"]["average"] == pytest.approx(0.9)
    assert found["oracle"]["forgetting/first"] == 0
    assert found["routed"]["average"] == pytest.approx((0.84 + 0.87 + 0.9) / 3)
    assert found["routed"]["forgetting/first"] == pytest.approx((0.06 + 0.03) / 2)
    assert found["routed"]["bwt/gem"] == pytest.approx(-(0.06 + 0.03) / 2)
    assert found["routing"]["oracle_gap"] == pytest.approx((0.06 + 0.03) / 3)
    assert found["routing"]["task_identity"] == pytest.approx((0.89 + 0.92 + 0.95) / 3)
    assert found["routing"]["interference"] == pytest.approx({"a": 0.06, "b": 0.03, "c": 0})


def test_where_a_task_is_learned_again_averages_are_still_told() -> None:
    first = steps(TASKS)
    again = replace(first[-1], step=3, task="a", version=2, kind="new version")
    found = summary(Matrix(steps=(*first, again)))
    assert found["routed"]["average"] == pytest.approx((0.84 + 0.87 + 0.9) / 3)
    assert not [name for name in found["routed"] if "forgetting" in name]
    assert found["routing"]["interference"]["a"] == pytest.approx(0.06)


def test_a_task_that_was_left_out_of_a_step_spoils_no_average() -> None:
    first = steps(TASKS)
    gone = replace(first[-1], oracle={"c": Right(correct=1, total=2)}, routed={}, identity={})
    found = summary(Matrix(steps=(*first[:-1], gone)))
    assert found == {
        "steps": 3, "tasks": 3, "oracle": {"average": 0.5, "average/micro": 0.5},
    }  # fmt: skip


def test_no_step_has_no_metrics() -> None:
    assert summary(Matrix()) == {"steps": 0, "tasks": 0}
