"""Charts of the report: tables that are heat maps, and small SVGs. All values stand in text too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapterbank.report.html import Html, tag

STEPS = 9  # of the sequential palette, classes q0 to q8 of the style sheet
_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 176, 14, 44


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a heat map: a fraction that colours it, what it says, and what it says in full."""

    value: float | None
    text: str
    title: str = ""
    mark: bool = False  # framed


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart, by the name of its CSS class; points are fractions."""

    label: str
    series: str
    points: Sequence[tuple[float, float]]


def heat_map(
    corner: str, columns: Sequence[str], rows: Mapping[str, Sequence[Cell]], *, caption: str
) -> Html:
    """Draw a matrix of fractions from 0 to 1, each cell with its figure.

    Args:
        corner: what rows and columns are.
        columns: names.
        rows: cells by name of the row.
        caption: what it shows.
    """
    head = tag("tr", tag("th", corner, scope="col", class_="corner"),
               *(tag("th", name, scope="col") for name in columns))  # fmt: skip
    body = [
        tag("tr", tag("th", name, scope="row"), *(_cell(cell) for cell in cells))
        for name, cells in rows.items()
    ]
    table = tag("table", tag("thead", head), tag("tbody", *body), class_="heat")
    return tag("figure", tag("figcaption", caption), tag("div", table, class_="scroll"), _key())


def _cell(cell: Cell) -> Html:
    if cell.value is None:
        return tag("td", cell.text, class_="none")
    level = min(STEPS - 1, int(max(0.0, cell.value) * STEPS))
    named = f"q{level} mark" if cell.mark else f"q{level}"
    return tag("td", cell.text, class_=named, title=cell.title or None)


def _key() -> Html:
    """Which colour means what."""
    steps = (tag("span", class_=f"q{level}") for level in range(STEPS))
    return tag("p", "0 %", tag("span", *steps, class_="ramp"), "100 %", class_="key")


def track(value: float | None, reference: float | None, title: str) -> Html:
    """Draw a fraction as a dot on a line from 0 to 1, and what it is compared with as a tick."""
    parts = [tag("line", x1=4, x2=124, y1=9, y2=9, class_="rail")]
    if value is not None and reference is not None:
        ends = sorted((4 + 120 * reference, 4 + 120 * value))
        gained = "gain" if value >= reference else "loss"
        parts.append(tag("line", x1=f"{ends[0]:.1f}", x2=f"{ends[1]:.1f}", y1=9, y2=9,
                         class_=gained))  # fmt: skip
    if reference is not None:
        x = f"{4 + 120 * reference:.1f}"
        parts.append(tag("line", x1=x, x2=x, y1=3, y2=15, class_="tick"))
    if value is not None:
        parts.append(tag("circle", cx=f"{4 + 120 * value:.1f}", cy=9, r=4, class_="dot"))
    return tag("svg", tag("title", title), *parts, viewBox="0 0 128 18", width=128, height=18,
               role="img", class_="track")  # fmt: skip


def bar(part: float, whole: float, title: str) -> Html:
    """Draw a bar of ``whole`` of the width, of which ``part`` is filled; both fractions."""
    return tag(
        "svg",
        tag("title", title),
        tag("rect", x=0, y=3, width=f"{240 * whole:.1f}", height=12, class_="rest"),
        tag("rect", x=0, y=3, width=f"{240 * part:.1f}", height=12, class_="fill"),
        viewBox="0 0 240 18", width=240, height=18, role="img", class_="bar",
    )  # fmt: skip


def curves(
    lines: Sequence[Line], *, title: str, x_name: str, y_name: str, x_most: float, mark: float
) -> Html:
    """Draw lines with their names at their ends.

    Args:
        lines: each from x = 0 to ``x_most``.
        title: what it shows, for those who cannot see it.
        x_name: of the axis below.
        y_name: of the axis to the left, which goes from 0 to 1.
        x_most: where the axis below ends.
        mark: an x that is marked.
    """
    parts = [*_axes(x_name, y_name, x_most), *_mark(mark, x_most)]
    for line in lines:
        points = " ".join(f"{_x(x, x_most):.1f},{_y(y):.1f}" for x, y in line.points)
        parts.append(tag("polyline", points=points, class_=f"line {line.series}"))
    for line, y in zip(lines, _apart([_y(line.points[-1][1]) for line in lines]), strict=True):
        parts.append(
            tag("text", line.label, x=_WIDTH - _RIGHT + 8, y=f"{y + 4:.1f}",
                class_=f"label {line.series}")
        )  # fmt: skip
    return tag("svg", tag("title", title), *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
               role="img", class_="chart")  # fmt: skip


def _axes(x_name: str, y_name: str, x_most: float) -> list[Html]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [tag("text", y_name, x=_LEFT, y=9, class_="axis")]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = f"{_y(share):.1f}"
        parts += [
            tag("line", x1=_LEFT, x2=right, y1=y, y2=y, class_="base" if share == 0 else "grid"),
            tag("text", f"{share:.0%}".replace("%", " %"), x=_LEFT - 6, y=f"{_y(share) + 4:.1f}",
                class_="axis end"),
        ]  # fmt: skip
    for part in range(6):
        x = x_most * part / 5
        parts.append(tag("text", f"{100 * x:.0f} %", x=f"{_x(x, x_most):.1f}", y=bottom + 16,
                         class_="axis middle"))  # fmt: skip
    middle = (_LEFT + right) / 2
    return [*parts, tag("text", x_name, x=middle, y=bottom + 36, class_="axis middle")]


def _mark(mark: float, x_most: float) -> list[Html]:
    if not 0 <= mark <= x_most:
        return []
    x = f"{_x(mark, x_most):.1f}"
    return [
        tag("line", x1=x, x2=x, y1=_y(1.0), y2=_y(0.0), class_="marked"),
        tag("text", f"served: α = {100 * mark:g} %", x=f"{_x(mark, x_most) + 5:.1f}",
            y=_y(1.0) + 12, class_="axis"),
    ]  # fmt: skip


def _apart(wanted: Sequence[float], gap: float = 15.0) -> list[float]:
    """Move labels up until none covers another; the lowest stays."""
    found = list(wanted)
    below = float("inf")
    for index in sorted(range(len(found)), key=found.__getitem__, reverse=True):
        found[index] = min(found[index], below - gap)
        below = found[index]
    return found


def _x(value: float, most: float) -> float:
    return _LEFT + (_WIDTH - _RIGHT - _LEFT) * value / most


def _y(share: float) -> float:
    return _TOP + (_HEIGHT - _BOTTOM - _TOP) * (1 - share)


def legend(*entries: tuple[str, str]) -> Html:
    """Say what signs mean: (CSS class, words)."""
    items = (tag("span", tag("span", class_=f"sign {sign}"), words) for sign, words in entries)
    return tag("p", *items, class_="key")
