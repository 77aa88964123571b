"""This project's own pipeline: that of every bank, and the code its stages run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from adapterbank.integrations.environment import DEFAULTS
from adapterbank.integrations.scaffold import init_bank

_PROJECT: Final = Path(__file__).parents[2]
_TEMPLATE: Final = _PROJECT / "adapterbank/integrations/templates/pipeline.yaml"
_BRANCH: Final = ("prepare", "tune", "train", "evaluate", "register")


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


def test_the_code_that_the_project_s_stages_name_exists() -> None:
    named = {
        dependency
        for stage in _project_stages().values()
        for dependency in stage.get("do", stage)["deps"]
        if dependency.startswith("adapterbank/")
    }

    assert [name for name in sorted(named) if not (_PROJECT / name).exists()] == []


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_whatever_shapes_a_version_is_a_dependency_of_what_makes_it(stage: str) -> None:
    assert {
        "adapterbank/backbones",
        "adapterbank/config.py",
        "adapterbank/methods",
        "adapterbank/records.py",
        "adapterbank/registry/adapter_config.py",
        "adapterbank/registry/documents.py",
    } <= set(_project_stages()[stage]["do"]["deps"])


def test_no_task_trains_again_because_a_champion_of_another_moved() -> None:
    # A warm start reads champions, and pins the one it takes in its version.
    dependencies = _project_stages()["train"]["do"]["deps"]
    assert "adapterbank/continual/warm_start.py" in dependencies
    assert not [name for name in dependencies if name.startswith("registry/adapters")]


def test_dvc_reads_the_whole_project_and_lists_every_stage_of_every_task() -> None:
    # DVC parses any file called dvc.yaml below the root, so a template must not be called so.
    tasks = yaml.safe_load((_PROJECT / "pipelines/params.yaml").read_text())["tasks"]
    stages = {"backbone", "release"} | {f"{s}@{t}" for s in _BRANCH for t in tasks}
    assert _list_stages(_PROJECT) == stages


@pytest.mark.parametrize(
    "pipeline", [_PROJECT / "dvc.yaml", _TEMPLATE], ids=["project", "template"]
)
def test_a_task_need_not_name_its_method(tmp_path: Path, pipeline: Path) -> None:
    init_bank(tmp_path, git=False)
    shutil.copy(pipeline, tmp_path / "dvc.yaml")
    params = tmp_path / "pipelines/params.yaml"
    content = yaml.safe_load(params.read_text())
    params.write_text(yaml.safe_dump(content | {"tasks": {"pets": {"data": "photos"}}}))
    assert _list_stages(tmp_path) == {"backbone", "release"} | {f"{s}@pets" for s in _BRANCH}
