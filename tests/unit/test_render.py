"""One answer, printed for people or for programs."""

from __future__ import annotations

import json
import math
import sys
from contextlib import closing
from pathlib import Path

import pytest
import typer

from adapterbank.cli import render
from adapterbank.cli.predict import _answer as answer_of
from adapterbank.cli.progress import Bar, spinner
from adapterbank.cli.render import Answer, Faint, Table
from adapterbank.errors import ConfigError
from adapterbank.records import Prediction, Score
from adapterbank.text import visible

ANSWER = Answer(
    {
        "path": Path("bank"),
        "test": Score(correct=3, total=4),
        "loss": math.nan,
        "pairs": (("a", 1), ("b", None)),
    },
    ["Two tasks:", Table(("task", ">test"), [("[red]", "75.0 %"), ("blues", "5.0 %")])],
    ["only MLflow does not show it yet"],
)


def test_with_json_the_content_is_one_line_of_plain_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    render.answer(ANSWER, as_json=True)
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert json.loads(out) == {
        "path": "bank",
        "test": {"correct": 3, "total": 4},
        "loss": None,
        "pairs": [["a", 1], ["b", None]],
    }
    assert err == "only MLflow does not show it yet\n"


def test_without_json_lines_and_tables_come_in_their_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    render.answer(ANSWER, as_json=False)
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert lines[:2] == [["Two", "tasks:"], ["task", "test"]]
    assert lines[3:5] == [["[red]", "75.0", "%"], ["blues", "5.0", "%"]]
    assert out.splitlines()[3].endswith("75.0 %")
    assert out.splitlines()[4].endswith(" 5.0 %")
    assert err == "only MLflow does not show it yet\n"


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_an_exit_code_is_raised_after_the_answer_is_printed(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    with pytest.raises(typer.Exit) as caught:
        render.answer(Answer({"ok": False}, ["damaged"], exit_code=4), as_json=as_json)
    assert caught.value.exit_code == 4
    assert capsys.readouterr().out == ('{"ok": false}\n' if as_json else "damaged\n")


def test_problems_are_named_with_what_mends_them() -> None:
    problems = [("damaged", "dtd@3 is cut off", "adapterbank pull dtd@3"), ("Git", "dirty", None)]
    assert render.problem_lines(problems) == [
        "damaged: dtd@3 is cut off",
        "  To mend it: adapterbank pull dtd@3",
        "Git: dirty",
    ]


EVIL = "\x1b]0;title\x07\x1b[2Ja\u202eb\x9b\nError: forged"


def print_everywhere(text: str, *, as_json: bool) -> None:
    """Print a text of somebody else's in every way there is."""
    parts = (text, Faint(text, text), Table((text,), [(text,)], title=text))
    render.answer(Answer({text: [text]}, parts, [text]), as_json=as_json)
    render.line(text)
    render.note(text)
    failure = ConfigError(text, [text], fix=text)
    render.error("ConfigError", failure.message, failure.fix, 2, as_json=as_json)
    render.usage_error(typer.BadParameter(text), as_json=as_json)


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_no_text_of_somebody_else_moves_the_cursor_or_forges_a_line(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    print_everywhere("plain", as_json=as_json)
    plain = capsys.readouterr()
    print_everywhere(EVIL, as_json=as_json)
    evil = capsys.readouterr()
    for said, shown in zip(plain, evil, strict=True):
        assert shown.count("\n") == said.count("\n")
        assert all(line == visible(line) for line in shown.split("\n"))
        assert "\nError: forged" not in shown


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "log"])
def test_progress_is_as_harmless_as_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    ticks = iter(range(0, 1000, 10))
    with closing(Bar(EVIL, clock=lambda: next(ticks))) as bar, spinner(EVIL):
        bar(0, 3)
        bar(1, 3)
        bar.say(f"[bold]{EVIL}:smile:")
    said = capsys.readouterr().err
    assert f"[bold]{visible(EVIL)}:smile:" in said.replace("\n", "")
    assert "\x1b]0" not in said
    assert "\x07" not in said


def test_an_answer_of_any_label_and_any_name_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    prediction = Prediction(image=EVIL, task="a", version=1, digest="d", label=EVIL,
                            probability=0.5, top_k=((EVIL, 0.5), (EVIL, 0.4)),
                            latency_ms=1.0)  # fmt: skip
    render.answer(answer_of(EVIL, prediction, 5, 5), as_json=False)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out[:-1] == visible(out[:-1])
    render.answer(answer_of(EVIL, prediction, 5, 5), as_json=True)
    assert json.loads(capsys.readouterr().out)["label"] == EVIL
