"""Adding a task to ``params.yaml``: the old text stays, the new task is what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from adapterbank.config.bank import parse_config
from adapterbank.config.params_file import add_task, with_task, without_task
from adapterbank.config.yaml import read_mapping
from adapterbank.errors import ConfigError, ConflictError, InputError

HEAD = "profile: full # in use\nprofiles:\n  full: {} # all of it\n"
SECTION = {"data": "photos/pets", "method": "vapt"}

FORMS = {
    "no section": "",
    "empty mapping": "tasks: {}\n",
    "empty mapping with comment": "tasks: {} # none yet\ngates: {min_accuracy: 0.1}\n",
    "one a line": "tasks:\n  a: {data: x} # first\n  b: {data: y}\n",
    "blocks": "tasks:\n  # the first\n  a:\n    data: x\n    hyper: {rank: 4}\n  b:\n    data: y\n",
    "before another section": "tasks:\n  a: {data: x}\n\n# gates\ngates: {min_accuracy: 0.1}\n",
    "deeply indented": "tasks:\n      a:\n          data: x\n          hyper: {rank: 4}\n",
    "no line break at the end": "tasks:\n  a: {data: x}",
    "only a key at the end": "tasks: {}",
    "flow": "tasks: {a: {data: x}, b: {data: y}} # both\n",
    "flow over lines": "tasks: {\n  a: {data: x},\n  b: {data: y},\n}\n",
    "list at the end": "tasks:\n  a:\n    data: x\n    hyper:\n      some:\n      - 1\n      - 2\n",
    "block text at the end": "tasks:\n  a:\n    data: |\n      x\n",
    "anchors": "tasks:\n  a: &a {data: x}\n  b: *a\n",
    "other script": "tasks:\n  a: {data: фото/猫} # 写真\n",
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def comments(text: str) -> list[str]:
    """Return what stands behind each ``#``."""
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


@each_form
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["unix", "windows"])
def test_a_task_is_added_and_the_rest_says_what_it_said(form: str, newline: str) -> None:
    text = (HEAD + form).replace("\n", newline)
    before = parse_config(text, where="params.yaml")
    changed = with_task(text, "pets", SECTION)
    after = parse_config(changed, where="params.yaml")
    assert list(after.tasks) == [*before.tasks, "pets"]
    assert after.task("pets").data == "photos/pets"
    assert after.model_copy(update={"tasks": before.tasks}) == before
    assert comments(changed) == comments(text)
    assert ("\r\n" in changed) == (newline == "\r\n")
    assert newline == "\n" or "\n" not in changed.replace("\r\n", "")


@pytest.mark.parametrize(
    "form",
    [v for k, v in FORMS.items() if "flow" not in k and "empty" not in k and "only" not in k],
)
def test_no_line_that_was_there_changes(form: str) -> None:
    lines = with_task(HEAD + form, "pets", SECTION).splitlines()
    assert [line for line in lines if "pets" not in line and "vapt" not in line and line] == [
        line for line in [*(HEAD + form).splitlines(), *([] if form else ["tasks:"])] if line
    ]


NAMES = [
    *("123", "2e3", "1e5", "0o7", "0x1f", "0b1", "1_000", "12-30", "2026-01-02", "12e03", "190_20"),
    *("null", "true", "no", "yes", "on", "off", "y", "n"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_one_reader_reads_as_something_else_is_quoted(name: str) -> None:
    text = with_task(HEAD + FORMS["one a line"], name, SECTION)
    assert list(parse_config(text, "params.yaml").tasks) == ["a", "b", name]
    assert list(yaml.safe_load(text)["tasks"]) == ["a", "b", name]  # YAML 1.1
    assert without_task(text, name) == HEAD + FORMS["one a line"]


@given(
    name=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,9}", fullmatch=True),
    data=st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=9),
)
def test_both_versions_of_yaml_read_what_is_written_alike(name: str, data: str) -> None:
    text = with_task(HEAD, "tiny", {"data": data, "hyper": {"x": [data, {name: data}]}})
    assert yaml.safe_load(text) == read_mapping(text, "params.yaml")


@pytest.mark.parametrize("name", ["1e5", "123", "null", "true", "2026-01-02", "0x1f"])
def test_a_bare_name_that_is_no_text_says_what_mends_it(name: str) -> None:
    with pytest.raises(ConfigError, match="not as text: write it in quotes"):
        parse_config(f"{HEAD}tasks:\n  {name}: {{data: x}}\n", "params.yaml")


@pytest.mark.parametrize(
    "tasks", ["{\n  a: {data: x}, # mine\n}", "# mine\n  {a: {data: x}}", "\n# mine\n  {}"]
)
def test_a_comment_around_braces_that_would_be_lost_stops_the_edit(tasks: str) -> None:
    text = f"{HEAD}tasks: {tasks}\n"
    with pytest.raises(InputError, match="nothing was written"):
        with_task(text, "pets", SECTION)


def test_the_method_is_written_though_it_is_the_default() -> None:
    text = with_task(HEAD, "pets", {"data": "photos/pets", "seed": 3})
    assert list(read_mapping(text, "params.yaml")["tasks"]["pets"].items()) == [
        ("data", "photos/pets"),
        ("method", "vapt"),
        ("seed", 3),
    ]


@each_form
def test_a_second_task_goes_behind_the_first(form: str) -> None:
    text = with_task(with_task(HEAD + form, "pets", SECTION), "cars", {"data": "cars"})
    assert list(parse_config(text, where="params.yaml").tasks)[-2:] == ["pets", "cars"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(data=st.text(max_size=30), hyper=st.dictionaries(st.text(max_size=8), VALUES, max_size=4))
def test_any_values_come_back_as_they_were(data: str, hyper: dict[str, Any]) -> None:
    section = {"data": data, "method": "vapt", "hyper": hyper}
    text = with_task(HEAD + FORMS["one a line"], "pets", section)
    assert read_mapping(text, "params.yaml")["tasks"]["pets"] == section


def test_problems_of_the_new_section_are_named_together() -> None:
    section = {"data": 3, "metod": "vapt"}
    with pytest.raises(ConfigError, match="metod") as caught:
        with_task(HEAD, "pets", section)
    assert len(caught.value.problems) == 2


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="not a task name"):
        with_task(HEAD, "My Pets", SECTION)


def test_a_form_that_cannot_be_added_to_is_left_alone_and_the_lines_are_shown() -> None:
    text = f"{HEAD}gates: &nothing {{}}\ntasks: *nothing\n"
    assert parse_config(text, where="params.yaml").tasks == {}
    with pytest.raises(InputError, match="nothing was written") as caught:
        with_task(text, "pets", SECTION)
    assert "\n    data: photos/pets\n" in caught.value.message


def test_the_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "pipelines" / "params.yaml"
    path.parent.mkdir()
    (tmp_path / "registry").mkdir()
    path.write_text(HEAD, encoding="utf-8")
    assert "pets" in add_task(tmp_path, "pets", SECTION).tasks
    assert path.read_text(encoding="utf-8").startswith(HEAD)
    assert [entry.name for entry in path.parent.iterdir()] == ["params.yaml"]
    before = path.read_bytes()
    with pytest.raises(ConflictError):
        add_task(tmp_path, "pets", SECTION)
    assert path.read_bytes() == before
