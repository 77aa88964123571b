"""Which tasks of a profile with a search are searched, and what becomes of the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapterbank.bank.bank import Bank
from adapterbank.bank.plan import is_searched, plan_of
from adapterbank.cli import stage
from adapterbank.errors import InputError

_PARAMS = """\
profile: {profile}
profiles:
  plain: {{}}
  searched:
    search: {{sampler: {sampler}, trials: 4}}
spaces:
  vapt: {{prompts: [2, 3], learning_rate: [0.1, 0.2]}}
tasks:
  open: {{data: photos, method: vapt}}
  half: {{data: photos, method: vapt, hyper: {{prompts: 2}}}}
  pinned: {{data: photos, method: vapt, hyper: {{prompts: 2}}, train: {{learning_rate: 0.1}}}}
  solved: {{data: photos, method: linear, train: {{epochs: 3}}}}
  forgotten: {{data: photos, method: vpt_deep}}
"""


def bank(root: Path, *, profile: str = "searched", sampler: str = "random") -> Bank:
    path = root / "pipelines" / "params.yaml"
    path.parent.mkdir()
    path.write_text(_PARAMS.format(profile=profile, sampler=sampler))
    (root / "registry").mkdir()
    return Bank.open(root)


def searched(opened: Bank) -> set[str]:
    return {task for task in opened.config.tasks if is_searched(opened, task)}


def test_a_task_with_a_choice_left_is_searched_and_one_without_a_space_too(tmp_path: Path) -> None:
    # The search then says that `forgotten` has no space, instead of passing it over.
    assert searched(bank(tmp_path)) == {"open", "half", "forgotten"}


def test_the_paper_s_grid_has_a_choice_for_every_trained_task(tmp_path: Path) -> None:
    opened = bank(tmp_path, sampler="paper")
    assert searched(opened) == {"open", "half", "pinned", "forgotten"}


def test_a_profile_without_a_search_searches_nothing(tmp_path: Path) -> None:
    assert searched(bank(tmp_path, profile="plain")) == set()


@pytest.mark.parametrize("task", ["pinned", "solved"])
def test_a_task_with_nothing_to_choose_is_pinned_by_its_stage_and_trained_as_it_says(
    tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = bank(tmp_path)

    answer = stage.tune(opened, task, quiet=False)
    assert answer.content == {"task": task, "search": None}

    written = json.loads((tmp_path / "work" / task / "best.json").read_bytes())
    assert written == {"schema": 1, "pinned": True}
    assert f"{task}: nothing to search" in capsys.readouterr().err
    plan = plan_of(opened, task)
    assert plan.winner is None
    assert not plan.refit
    assert plan.training == opened.config.training(task)
    assert plan.hyper == opened.config.task(task).hyper


def test_a_pinned_file_does_not_stand_for_a_search_that_is_to_be_made(tmp_path: Path) -> None:
    opened = bank(tmp_path)
    stage.tune(opened, "pinned", quiet=True)
    (tmp_path / "work" / "open").mkdir()
    (tmp_path / "work" / "pinned" / "best.json").rename(tmp_path / "work" / "open" / "best.json")

    with pytest.raises(InputError, match="written without a search"):
        plan_of(opened, "open")
