"""Putting another section in the place of a task's: the rest of the text stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbank.config.bank import PARAMS, parse_config
from adapterbank.config.params_file import replace_task, with_task
from adapterbank.config.yaml import read_mapping
from adapterbank.errors import ConfigError, UnknownName
from tests.unit.test_params_removal import HEAD, each_form, each_task

NEW = {
    "data": "photos/новые",
    "method": "linear",
    "hyper": {"rank": 2},
    "classes": ["one", "two"],
    "seed": 3,
}


@each_form
@each_task
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["unix", "windows"])
def test_one_task_changes_in_its_place_and_the_rest_says_what_it_said(
    form: str, name: str, newline: str
) -> None:
    text = (HEAD + form).replace("\n", newline)
    before = parse_config(text, where="params.yaml")
    changed = with_task(text, name, NEW)
    after = parse_config(changed, where="params.yaml")
    assert list(after.tasks) == list(before.tasks)
    assert read_mapping(changed, "params.yaml")["tasks"][name] == NEW
    assert {task: one for task, one in after.tasks.items() if task != name} == {
        task: one for task, one in before.tasks.items() if task != name
    }
    assert after.model_copy(update={"tasks": before.tasks}) == before
    assert newline == "\n" or "\n" not in changed.replace("\r\n", "")
    assert with_task(changed, name, NEW) == changed


def test_comments_of_other_tasks_stay() -> None:
    text = f"{HEAD}tasks:\n  a: {{data: x}} # first\n  # second\n  b: {{data: y}} # here\n"
    assert with_task(text, "a", {"data": "z"}) == text.replace(
        "{data: x}", "{data: z, method: vapt}"
    )


def test_comments_of_the_task_itself_stay_above_it() -> None:
    text = f"{HEAD}tasks:\n  a:\n    data: x # old\n    # seeds\n    seed: 2\n  b: {{data: y}}\n"
    assert with_task(text, "a", {"data": "z"}) == (
        f"{HEAD}tasks:\n  # old\n  # seeds\n  a:\n    data: z\n    method: vapt\n  b: {{data: y}}\n"
    )


def test_a_task_nobody_knows_or_a_wrong_section_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / PARAMS
    path.parent.mkdir()
    (tmp_path / "registry").mkdir()
    text = f"{HEAD}tasks:\n  a: {{data: x}}\n"
    path.write_text(text)
    with pytest.raises(UnknownName, match="'b'"):
        replace_task(tmp_path, "b", NEW)
    with pytest.raises(ConfigError, match="metod"):
        replace_task(tmp_path, "a", {"data": "x", "metod": "vapt"})
    assert path.read_text() == text
    assert replace_task(tmp_path, "a", NEW).tasks["a"].data == NEW["data"]
