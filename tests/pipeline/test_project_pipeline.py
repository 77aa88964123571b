"""This project's own pipeline: that of every bank, and the code its stages run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import grimp
import pytest
import yaml

from adapterbank.bank.scaffold import init_bank
from adapterbank.integrations.environment import DEFAULTS

_PROJECT: Final = Path(__file__).parents[2]
_TEMPLATE: Final = _PROJECT / "adapterbank/bank/templates/pipeline.yaml"
_BRANCH: Final = ("prepare", "tune", "train", "evaluate", "register")
_ADAPTING: Final = {"tune", "train", "evaluate"}
# Tells of the work, and shapes no output of a stage.
_BESIDE: Final = {"errors", "integrations", "text"}


def _list_stages(root: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"],
        cwd=root, env={**os.environ, **DEFAULTS}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return set(done.stdout.split())


def _project_stages() -> dict[str, Any]:
    stages: dict[str, Any] = yaml.safe_load((_PROJECT / "dvc.yaml").read_text())["stages"]
    return stages


def _without_code(stages: dict[str, Any]) -> dict[str, Any]:
    """Return the stages less the dependencies on this project's code."""
    plain = json.loads(json.dumps(stages))
    for stage in plain.values():
        body = stage.get("do", stage)
        kept = [dep for dep in body.pop("deps", []) if not dep.startswith("adapterbank/")]
        if kept:
            body["deps"] = kept
    return dict(plain)


def test_the_project_s_pipeline_is_the_template_and_its_code() -> None:
    project = yaml.safe_load((_PROJECT / "dvc.yaml").read_text())
    template = yaml.safe_load(_TEMPLATE.read_text())

    assert project["vars"] == template["vars"]
    assert _without_code(project["stages"]) == _without_code(template["stages"])
    assert template["stages"] == _without_code(template["stages"])


@cache
def _imports() -> grimp.ImportGraph:
    return grimp.build_graph("adapterbank")


def _needed(stage: str) -> set[str]:
    """Return the rooms whose code a stage's module reaches, as `dvc.yaml` names them."""
    entry = f"adapterbank.pipeline.{stage}"
    needed = set()
    for module in {entry, *_imports().find_upstream_modules(entry)}:
        _, _, inner = module.partition(".")
        room, _, file = inner.partition(".")
        if not inner or room in _BESIDE:
            continue
        if room == "pipeline" and file:
            needed.add(f"adapterbank/pipeline/{file}.py")
        elif room == "methods":
            needed.add("adapterbank/methods/base.py")
        elif room != "pipeline":
            package = (_PROJECT / "adapterbank" / room).is_dir()
            needed.add(f"adapterbank/{room}" if package else f"adapterbank/{room}.py")
    # Found by name when it runs, which no import shows.
    return needed | ({"adapterbank/methods/${item.method}.py"} if stage in _ADAPTING else set())


@pytest.mark.parametrize("stage", ["backbone", *_BRANCH, "release"])
def test_a_stage_depends_on_exactly_the_rooms_it_runs(stage: str) -> None:
    body = _project_stages()[stage]
    named = [dep for dep in body.get("do", body)["deps"] if dep.startswith("adapterbank/")]

    assert named == sorted(_needed(stage))


def test_no_task_trains_again_because_a_champion_of_another_moved() -> None:
    dependencies = _project_stages()["train"]["do"]["deps"]
    assert not [name for name in dependencies if name.startswith("registry/adapters")]


def test_a_new_method_makes_no_task_stale() -> None:
    named = {
        dep
        for body in _project_stages().values()
        for dep in body.get("do", body)["deps"]
        if dep.startswith("adapterbank/methods")
    }
    assert named == {"adapterbank/methods/base.py", "adapterbank/methods/${item.method}.py"}


def test_every_task_of_the_project_names_its_method() -> None:
    tasks = yaml.safe_load((_PROJECT / "pipelines/params.yaml").read_text())["tasks"]
    assert [name for name, task in tasks.items() if "method" not in task] == []


def test_dvc_reads_the_whole_project_and_lists_every_stage_of_every_task() -> None:
    # DVC parses any file called dvc.yaml below the root, so a template must not be called so.
    tasks = yaml.safe_load((_PROJECT / "pipelines/params.yaml").read_text())["tasks"]
    stages = {"backbone", "release"} | {f"{s}@{t}" for s in _BRANCH for t in tasks}
    assert _list_stages(_PROJECT) == stages


def test_a_task_need_not_name_its_method(tmp_path: Path) -> None:
    init_bank(tmp_path, git=False)
    params = tmp_path / "pipelines/params.yaml"
    content = yaml.safe_load(params.read_text())
    params.write_text(yaml.safe_dump(content | {"tasks": {"pets": {"data": "photos"}}}))
    assert _list_stages(tmp_path) == {"backbone", "release"} | {f"{s}@pets" for s in _BRANCH}
