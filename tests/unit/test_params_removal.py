"""Taking a task out of ``params.yaml``: the rest of the text stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbank.config.bank import parse_config
from adapterbank.config.params_file import remove_task, with_task, without_task
from adapterbank.config.yaml import read_mapping
from adapterbank.errors import InputError

HEAD = "profile: full # in use\nprofiles:\n  full: {} # all of it\n"
FORMS = {
    "one a line": "tasks:\n  a: {data: x} # first\n  b: {data: y}\n  c: {data: z}\n",
    "blocks": "tasks:\n  # the first\n  a:\n    data: x\n    hyper: {rank: 4}\n\n  # the second\n"
    "  b:\n    data: y # here\n    seed: 2\n  # the last\n  c:\n    data: z\n",
    "before another section": "tasks:\n  a: {data: x}\n  b: {data: y}\n  c: {data: z}\n\n# gates\n"
    "gates: {min_accuracy: 0.1}\n",
    "deeply indented": "tasks:\n      a:\n          data: x\n      b:\n          data: y\n"
    "      c:\n          data: z\n          hyper: {rank: 4}\n",
    "no line break at the end": "tasks:\n  a: {data: x}\n  b: {data: y}\n  c: {data: z}",
    "flow": "tasks: {a: {data: x}, b: {data: y}, c: {data: z}} # all\n",
    "flow over lines": "tasks: {\n  a: {data: x},\n  b: {data: y},\n  c: {data: z},\n}\n",
    "block text": "tasks:\n  a:\n    data: |\n      x\n  b:\n    data: >-\n      y\n"
    "  c:\n    data: |\n      z\n",
    "other script": "tasks:\n  a: {data: фото/猫} # 写真\n  b: {data: y}\n  c: {data: z}\n",
}
# The first edit of tasks in braces gives each a line of its own, so that later ones are one line.
_LINES = "  a: {data: x}\n  b: {data: y}\n  c: {data: z}\n"
AS_LINES = {FORMS["flow"]: f"tasks: # all\n{_LINES}", FORMS["flow over lines"]: f"tasks:\n{_LINES}"}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
each_task = pytest.mark.parametrize("name", ["a", "b", "c"])


@each_form
@each_task
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["unix", "windows"])
def test_one_task_goes_and_the_rest_says_what_it_said(form: str, name: str, newline: str) -> None:
    text = (HEAD + form).replace("\n", newline)
    before = parse_config(text, where="params.yaml")
    changed = without_task(text, name)
    after = parse_config(changed, where="params.yaml")
    assert list(after.tasks) == [task for task in "abc" if task != name]
    assert after.model_copy(update={"tasks": before.tasks}) == before
    lines = (HEAD + AS_LINES.get(form, form)).splitlines()
    assert set(changed.splitlines()) <= set(lines)
    assert newline == "\n" or "\n" not in changed.replace("\r\n", "")


@each_form
def test_all_tasks_can_go_one_by_one(form: str) -> None:
    text = HEAD + form
    for name in "bac":
        text = without_task(text, name)
    assert read_mapping(text, "params.yaml")["tasks"] == {}  # not null, which DVC could not iterate
    assert parse_config(text, where="params.yaml").tasks == {}


@each_form
def test_comments_between_tasks_stay(form: str) -> None:
    text = HEAD + form
    alone = [line for line in text.splitlines() if line.lstrip().startswith("#")]
    changed = without_task(without_task(text, "b"), "c")
    assert [line for line in changed.splitlines() if line.lstrip().startswith("#")] == alone


@each_form
def test_adding_and_removing_gives_the_text_there_was(form: str) -> None:
    text = HEAD + form
    added = with_task(text, "pets", {"data": "photos/pets", "hyper": {"rank": 2}})
    back = without_task(added, "pets")
    # A line break may be at the end that was not.
    assert back.rstrip("\n") == (HEAD + AS_LINES.get(form, form)).rstrip("\n")


def test_a_task_that_is_not_there_changes_nothing() -> None:
    text = HEAD + FORMS["blocks"]
    assert without_task(text, "d") == text


def test_an_anchor_that_another_task_needs_is_not_taken_away() -> None:
    text = HEAD + "tasks:\n  a: &a {data: x}\n  b: *a\n"
    with pytest.raises(InputError, match="nothing was written") as caught:
        without_task(text, "a")
    assert caught.value.fix is not None
    assert "delete a from it by hand" in caught.value.fix
    assert without_task(text, "b") == text.replace("  b: *a\n", "")


def test_the_file_is_written_once_and_not_again(tmp_path: Path) -> None:
    path = tmp_path / "pipelines" / "params.yaml"
    path.parent.mkdir()
    (tmp_path / "registry").mkdir()
    path.write_text(HEAD + FORMS["blocks"])
    assert list(remove_task(tmp_path, "b").tasks) == ["a", "c"]
    written = path.stat().st_ino
    assert list(remove_task(tmp_path, "b").tasks) == ["a", "c"]
    assert path.stat().st_ino == written
