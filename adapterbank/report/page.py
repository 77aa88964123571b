"""The page of ``adapterbank report``: one file of HTML that needs nothing else, and no script."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from statistics import fmean
from typing import TYPE_CHECKING

from adapterbank import __version__
from adapterbank.report.charts import bar, legend, track
from adapterbank.report.html import Html, join, style, tag
from adapterbank.report.page_history import histories
from adapterbank.report.page_results import matrix_section, router_section
from adapterbank.report.page_tables import facts, moment, plain_table, section
from adapterbank.text import human_bytes, percent, short_digest

if TYPE_CHECKING:
    from adapterbank.records import Score
    from adapterbank.report.overview import Overview, TaskView

# Whatever were to slip in, a browser would run and fetch nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render_page(found: Overview) -> bytes:
    """Write the page. The same overview gives the same bytes."""
    sheet = files("adapterbank.report").joinpath("report.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"adapterbank {__version__}"),
        tag("link", rel="icon", href="data:,"),
        tag("title", "Adapter bank"),
        style(sheet),
    )
    body = tag(
        "body",
        _header(found),
        tag("main", _tasks(found), matrix_section(found.matrix), router_section(found.router),
            _storage(found), _backbone(found), histories(found.tasks, found.router.history)),
    )  # fmt: skip
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en').text}\n".encode()


def _header(found: Overview) -> Html:
    served = [view for view in found.tasks if view.champion is not None]
    tests = [view.champion.test for view in served if view.champion and view.champion.test]
    probes = [view.champion.probe for view in served if view.champion and view.champion.probe]
    adapters = sum(view.champion.adapter_bytes for view in served if view.champion)
    when = (
        "empty"
        if found.newest is None
        else f"as of {moment(found.newest)}, the last event of its history"
    )
    tiles = (
        (str(len(served)), "tasks served"),
        (str(sum(view.versions for view in found.tasks)), "versions kept"),
        (_mean(tests), "mean test accuracy of champions"),
        (_mean(probes), "of linear probes, same backbone"),
        (human_bytes(adapters), "weights of all champions"),
        (human_bytes(found.backbone_bytes), "the one backbone"),
    )
    shown = (tag("li", tag("b", value), tag("span", name)) for value, name in tiles)
    problems = [tag("p", problem, class_="notice problem") for problem in found.problems]
    return tag(
        "header",
        tag("h1", "Adapter bank"),
        tag("p", when, class_="muted"),
        *problems,
        tag("ul", *shown, class_="tiles"),
    )


def _mean(scores: Sequence[Score]) -> str:
    return f"{100 * fmean(one.accuracy for one in scores):.1f} %" if scores else "–"


def _tasks(found: Overview) -> Html:
    if not found.tasks:
        return section("Tasks", tag("p", "No task has a version yet. Next: dvc repro"))
    columns = ("task", "champion", "method", ">classes", ">test", ">linear probe", "0 to 100 %",
               ">parameters", ">weights", ">versions")  # fmt: skip
    key = legend(("dot", "champion on its test images"),
                 ("tick", "a linear probe of the bare backbone on the same"))  # fmt: skip
    table = plain_table(columns, [_task_row(view) for view in found.tasks], wide=True)
    note = "Parameters are those of the method and those of the head."
    return section("Tasks", table, key, tag("p", note, class_="muted"))


def _task_row(view: TaskView) -> list[Html | str]:
    one = view.champion
    if one is None:
        state = tag("span", "damaged", class_="problem") if view.problem else "no champion"
        return [view.task, state, "–", "–", "–", "–", "", "–", "–", str(view.versions)]
    name = join(f"{one.version} ", tag("span", short_digest(one.digest), class_="digest"))
    count = "–" if one.parameters is None else f"{one.parameters[0]:,} + {one.parameters[1]:,}"
    told = f"{view.task}: champion {_percent(one.test)}, linear probe {_percent(one.probe)}"
    dot = track(_share(one.test), _share(one.probe), told)
    return [view.task, name, one.method, str(len(one.classes)), _percent(one.test),
            _percent(one.probe), dot, count, human_bytes(one.adapter_bytes),
            str(view.versions)]  # fmt: skip


def _share(score: Score | None) -> float | None:
    return score.accuracy if score is not None and score.total else None


def _percent(score: Score | None) -> str:
    return "–" if score is None else percent(score.correct, score.total)


def _storage(found: Overview) -> Html:
    most = max((one.total for one in found.storage), default=0)
    if not most:
        return section("Storage", tag("p", "No version lies on this disk."))
    rows: list[list[Html | str]] = []
    for one in found.storage:
        told = f"{one.name}: {human_bytes(one.served)} served of {human_bytes(one.total)}"
        rows.append([one.name, bar(one.served / most, one.total / most, told),
                     human_bytes(one.served), human_bytes(one.total)])  # fmt: skip
    total = sum(one.total for one in found.storage)
    table = plain_table(("name", "", ">served", ">all versions"), rows)
    words = f"All versions together take {human_bytes(total)}"
    if found.backbone_bytes:
        copies = len(found.tasks) * found.backbone_bytes
        words += (
            f", the one backbone {human_bytes(found.backbone_bytes)}; a copy of it for each"
            f" task would be {human_bytes(copies)}"
        )
    key = legend(("fill", "served now"), ("rest", "other versions"))
    note = tag("p", f"{words}. A version is its weights, canary, routing record and papers.")
    return section("Storage", note, table, key)


def _backbone(found: Overview) -> Html:
    record = found.backbone
    if record is None:
        return section("Backbone", tag("p", "None was fetched yet. Next: dvc repro"))
    height, width = record.spec.size
    traits = record.traits
    return section(
        "Backbone",
        facts(
            ("source", record.uri),
            ("architecture", record.arch),
            ("input", f"{height} × {width} pixels, {record.spec.interpolation}"),
            ("shape", f"{traits.blocks} blocks, width {traits.width}, {traits.patches} patches"),
            ("parameters", f"{traits.parameters:,}, all frozen"),
            ("fingerprint", tag("code", record.fingerprint)),
        ),
    )
