"""What the report's page says, and that it can be read."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from adapterbank.integrations.figures import COLOURS
from adapterbank.report.overview import MatrixView, Overview, RouterView
from adapterbank.report.page import render_page, verdict_words
from tests.overview_samples import overview

SHEET = files("adapterbank.report").joinpath("report.css").read_text(encoding="utf-8")
LIGHT, DARK = (
    dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", block))
    for block in re.findall(r":root \{(.*?)\}", SHEET, flags=re.DOTALL)
)
EMPTY = Overview(
    backbone=None, backbone_bytes=None, newest=None, tasks=(), storage=(),
    matrix=MatrixView(steps=(), summary={}, missing="no matrix yet"),
    router=RouterView(version=None, digest=None, history=(), figures=None, left_out={},
                      missing="no router yet"),
)  # fmt: skip


def page(found: Overview) -> ET.Element:
    """Render and read."""
    return ET.fromstring(render_page(found).partition(b"\n")[2])  # noqa: S314  # of our own


def text(found: Overview) -> str:
    """What a reader sees, on one line."""
    body = page(found).find("body")
    assert body is not None
    return " ".join(" ".join(body.itertext()).split())


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast of WCAG 2, from 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_every_word_stands_out_from_what_is_behind_it(colours: dict[str, str]) -> None:
    for name in ("ink", "muted", "accent", "second", "good", "bad"):
        assert contrast(colours[name], colours["page"]) >= 4.5, name
    for name in ("ink", "muted", "bad"):
        assert contrast(colours[name], colours["panel"]) >= 4.5, name
    for level in range(9):
        ink = colours["low-ink" if level <= 5 else "high-ink"]
        assert contrast(ink, colours[f"q{level}"]) >= 4.5, level


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_more_is_always_further_from_the_page(colours: dict[str, str]) -> None:
    shades = [contrast(colours[f"q{level}"], colours["page"]) for level in range(9)]
    assert all(one < other for one, other in pairwise(shades))


def test_charts_are_drawn_in_the_colours_of_the_page() -> None:
    assert {name: LIGHT[name] for name in COLOURS} == COLOURS
    assert COLOURS.keys() <= DARK.keys()
    drawn = [chart for chart in page(overview()).iter("svg") if chart.get("class") == "chart"]
    assert len(drawn) == 2
    styles = " ".join(part.get("style", "") for chart in drawn for part in chart.iter())
    assert "var(--accent)" in styles
    assert "#" not in styles  # a colour that does not follow the scheme


def test_charts_have_names_and_ids_of_their_own() -> None:
    drawn = [chart for chart in page(overview()).iter("svg") if chart.get("class") == "chart"]
    assert [chart[0].text for chart in drawn] == [
        "Mean accuracy over tasks after each step", "Share of images rejected against alpha",
    ]  # fmt: skip
    ids = [part.get("id") for part in page(overview()).iter() if part.get("id")]
    assert len(ids) == len(set(ids))


def test_the_page_runs_nothing_and_names_no_other_place() -> None:
    found = render_page(overview()).decode()
    names = {one.tag for one in page(overview()).iter()}
    assert not names & {"script", "iframe", "object", "embed", "img", "form", "a", "base"}
    assert not re.search(r"https?:|//[a-z]|@import|url\(", found)
    policy = [one.get("content", "") for one in page(overview()).iter("meta")]
    assert any(one.startswith("default-src 'none'; ") for one in policy)
    for one in page(overview()).iter():
        assert not [name for name in one.attrib if name.startswith("on")]
        assert one.get("href", "data:,") == "data:," or one.tag == "use"
        assert one.tag != "use" or one.get("href", "").startswith("#")


def test_figures_stand_where_they_belong() -> None:
    said = text(overview())
    assert "90.0 % mean test accuracy of champions 70.0 % of linear probes" in said
    assert (
        "after step reds greens 1 reds@1, new domain 90.0 2 greens@1, new domain 90.0 90.0" in said
    )
    assert "2 greens@1, new domain 87.0 90.0" in said
    assert "forgetting/first 0.0 points +3.0 points" in said
    assert "bwt/gem 0.0 points −3.0 points" in said
    assert "task_identity – 93.5 %" in said
    assert "interference: reds – +3.0 points" in said
    assert "greens 0 90.0 10.0" in said  # sent to reds, to greens, rejected
    assert "At the served α of 5 %, 10.0 % of known images are rejected, and 50.0 %" in said
    assert "challenger val 1/2 (50.0 %); p 0.03125; listed 0.5, word" in said


def test_what_is_missing_names_the_command_that_brings_it() -> None:
    said = text(EMPTY)
    assert "no matrix yet; a release adds one for each new champion. Next: dvc repro" in said
    assert "no router yet. Next: adapterbank router rebuild" in said
    assert "No task has a version yet. Next: dvc repro" in said


def test_of_hundreds_of_tasks_the_last_steps_and_the_worst_found_are_shown() -> None:
    tasks = tuple(f"t{number:03}" for number in range(120))
    found = overview(tasks)
    figures = found.router.figures
    assert figures is not None
    bad = replace(figures.confusion[7], chosen=(*[0] * 7, 30, 10, *[0] * 111), abstained=60)
    rows = (*figures.confusion[:7], bad, *figures.confusion[8:])
    router = replace(found.router, figures=replace(figures, confusion=rows))
    drawn = page(replace(found, router=router))
    maps = [one for one in drawn.iter("table") if one.get("class") == "heat"]
    assert [len(list(one.iter("tr"))) for one in maps] == [41, 41, 41]
    last = ["".join(row.itertext()) for row in maps[0].iter("tr")][-1]
    assert last.startswith("120 t119@1")
    assert len(maps[0][0][0]) == 41
    assert [one.text for one in maps[2][0][0]][-2:] == ["another task", "no known task"]
    worst = next(row for row in maps[2].iter("tr") if row[0].text == "t007")
    assert "30.0" in [cell.text for cell in worst]
    assert [cell.text for cell in worst][-1] == "60.0"
    assert "The last 40 of 120 steps" in text(found)


def test_a_task_without_a_champion_is_shown_all_the_same() -> None:
    found = overview()
    retired = replace(found.tasks[0], champion=None, aliases={}, problem=None)
    said = text(replace(found, tasks=(retired, found.tasks[1])))
    assert "reds no champion" in said
    assert "reds: 2 versions, no champion" in said


def test_a_long_history_is_folded() -> None:
    found = overview()
    long = replace(found.tasks[0], history=found.tasks[0].history * 200)
    unfolded = [one.get("open") for one in page(found).iter("details")]
    folded = [one.get("open") for one in page(replace(found, tasks=(long,))).iter("details")]
    assert unfolded == ["open"] * 3
    assert folded == [None, None]


def test_a_verdict_says_all_its_numbers_whatever_their_names() -> None:
    verdict = {
        "task": "t", "version": 2, "champion": 1, "outcome": "refused", "reason": "r", "data": "d",
        "champion_val": None, "gates": {"alpha": 0.05, "floor": None}, "test": "mcnemar",
        "discordant": [1, 6], "p": 0.0625, "difference": -0.03,
    }  # fmt: skip
    assert list(verdict_words(verdict)) == [
        "gates alpha 0.05", "test mcnemar", "discordant 1, 6", "p 0.0625", "difference -0.03",
    ]  # fmt: skip
