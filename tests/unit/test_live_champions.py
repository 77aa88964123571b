"""``task="auto"`` reads an alias file when it changed, and sees every move all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adapterbank.errors import IntegrityError, UnknownName
from adapterbank.inference.predictor import Predictor
from adapterbank.inference.router_versions import rebuild_router
from adapterbank.inference.routing import Champions
from adapterbank.records import ROUTER, Prediction
from adapterbank.registry.store import Registry
from tests import served
from tests.opened import opened_records
from tests.router_bank import colour_registry, picture, publish


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Return a registry with a router of three tasks."""
    made = colour_registry(tmp_path)
    rebuild_router(made, reason="a test")
    return made


def versions(predictor: Predictor, task: str) -> set[int]:
    """Return the versions of a task that answer images of it."""
    images = [picture(task, i % 2, 900 + i) for i in range(4)]
    answers = predictor.predict(images, task="auto")
    return {a.version for a in answers if isinstance(a, Prediction) and a.task == task}


def test_the_second_call_opens_no_alias_file(registry: Registry) -> None:
    predictor = Predictor(registry)
    with opened_records() as first:
        assert versions(predictor, "reds") == {1}
    assert {"reds.json", "greens.json", "blues.json", "router.json"} <= set(first)
    with opened_records() as second:
        assert versions(predictor, "reds") == {1}
    assert second == []


def test_a_look_at_hundreds_of_tasks_opens_only_what_changed(tmp_path: Path) -> None:
    registry = served.new_registry(tmp_path)
    served.publish(registry, "first")
    text = (registry.root / "aliases" / "first.json").read_text()
    names = [f"task{number:03}" for number in range(300)]
    for name in names:  # nobody reads their bytes here
        (registry.root / "aliases" / f"{name}.json").write_text(text.replace("first", name))
    champions = Champions(registry)
    with opened_records() as first:
        assert [champions.find(name) for name in names] == [None] * 300
    assert sorted(first) == [f"{name}.json" for name in names]
    registry.promote(str(served.publish(registry, "task007")), expected=None)
    with opened_records() as second:
        live = [name for name in names if champions.find(name) is not None]
    assert (live, second) == (["task007"], ["task007.json"])


def test_a_promotion_in_between_is_seen_and_only_its_file_is_read(registry: Registry) -> None:
    predictor = Predictor(registry)
    assert versions(predictor, "greens") == {1}
    publish(registry, "greens", 9)
    with opened_records() as again:
        assert versions(predictor, "greens") == {2}
    assert set(again) == {"greens.json"}


def test_many_moves_within_a_tick_of_the_clock_are_all_seen(registry: Registry) -> None:
    publish(registry, "greens", 9)
    champions = Champions(registry)
    served_versions = []
    for number in [1, 2] * 20:
        registry.promote(f"greens@{number}", expected=3 - number)
        served_versions.append(champions.require("greens").version)
    assert served_versions == [1, 2] * 20


def test_a_promotion_by_another_process_is_seen(registry: Registry) -> None:
    publish(registry, "greens", 9)
    predictor = Predictor(registry)
    assert versions(predictor, "greens") == {2}
    program = (
        "import sys; from adapterbank.registry.store import Registry;"
        " Registry.open(sys.argv[1]).promote('greens@1', expected=2)"
    )
    subprocess.run([sys.executable, "-c", program, str(registry.root)], check=True, timeout=60)
    assert versions(predictor, "greens") == {1}


def test_a_retired_task_is_looked_at_once_and_comes_back_when_promoted(registry: Registry) -> None:
    champions = Champions(registry)
    registry.retire("reds")
    assert champions.find("reds") is None
    with opened_records() as again:
        assert champions.find("reds") is None
    assert again == []
    with pytest.raises(UnknownName, match="was removed by"):
        champions.require("reds")
    registry.promote("reds@1", expected=None)
    assert champions.require("reds").version == 1


def test_a_task_whose_alias_file_comes_later_is_found_then(registry: Registry) -> None:
    champions = Champions(registry)
    assert champions.find("whites") is None
    publish(registry, "whites")
    assert champions.require("whites").version == 1


@pytest.mark.parametrize("name", ["aliases/greens.json", "router.json"])
def test_an_alias_file_that_is_damaged_in_between_is_refused(registry: Registry, name: str) -> None:
    predictor = Predictor(registry)
    versions(predictor, "reds")
    (registry.root / name).write_text("{")
    with pytest.raises(IntegrityError, match=Path(name).name):
        versions(predictor, "reds")


def test_a_router_that_is_rolled_back_is_asked_no_more(registry: Registry) -> None:
    champions = Champions(registry)
    before = champions.require(ROUTER).version
    publish(registry, "whites")
    rebuild_router(registry, reason="a test")
    assert champions.require(ROUTER).version == before + 1
    registry.rollback(ROUTER)
    assert champions.require(ROUTER).version == before
