"""Every picture of a bank, drawn once: MLflow's pages have them as PNG, the report as SVG.

Figures are built as objects, never by pyplot: threads may draw at once.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final
from xml.etree import ElementTree as ET

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from adapterbank.errors import InputError

COLOURS: Final[Mapping[str, str]] = {
    "ink": "#14181d",
    "muted": "#59636f",
    "rule": "#d9dee4",
    "accent": "#08519c",
    "second": "#b3460a",
}
"""The light colours of report.css. An SVG names them, so that it follows the page's scheme."""

_NUMBERED_UP_TO: Final = 25  # rows or columns; beyond that a number no longer fits its cell
_LEGIBLE: Final = 120  # names beyond this are thinned out
_LABEL_CHARACTERS: Final = 24
_DARK: Final = 0.6  # share from which a cell is too dark for black digits
_MARKED_UP_TO: Final = 30  # points of a curve; more are a line
_SVG_NAME: Final = "{http://www.w3.org/2000/svg}"
_FONT: Final = re.compile(r"font-family:[^;]*;\s*")
_LINK: Final = "{http://www.w3.org/1999/xlink}href"
_SVG_SETTINGS = threading.Lock()  # matplotlib has the settings of SVG once for all threads


def png(figure: Figure) -> bytes:
    """Write a figure as a PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    # A version or a date would make the bytes of equal pictures differ.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure, title: str) -> str:
    """Write a figure as an element that a page of HTML takes in.

    Its words are text in the font of the page, and its colours the page's own.

    Args:
        figure: in ``COLOURS`` and without a background.
        title: what it shows, for those who cannot see it; no other figure of the page has it.

    Returns:
        The ``svg`` element, the same for the same figure.
    """
    buffer = io.StringIO()
    unstamped = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with _SVG_SETTINGS, rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=unstamped)
    root = ET.fromstring(buffer.getvalue())  # noqa: S314  # matplotlib wrote it just now
    links = {element.get(_LINK, "")[1:] for element in root.iter()}
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG_NAME)
        if element.get("id") not in links:
            element.attrib.pop("id", None)
        if _LINK in element.attrib:
            element.set("href", element.attrib.pop(_LINK))
        if "style" in element.attrib:
            element.set("style", _themed(element.attrib["style"]))
    for style in root.findall("defs/style/.."):
        root.remove(style)  # it would be the page's as well
    size = root.attrib["viewBox"]
    root.attrib = {"class": "chart", "role": "img", "viewBox": size}
    name = ET.Element("title")
    name.text = title
    root.insert(0, name)
    return ET.tostring(root, encoding="unicode")


def _themed(style: str) -> str:
    style = _FONT.sub("", style)
    for name, colour in COLOURS.items():
        style = style.replace(colour, f"var(--{name})")
    return style


def confusion(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix.

    Colour is the share of each true class, so rare classes are as visible as common ones;
    the numbers in the cells are counts.

    Args:
        matrix: (C, C) counts, true class down, predicted class across.
        classes: C names, in the order of the rows.

    Raises:
        InputError: the matrix is not square, or does not match the names.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    size = len(classes)
    if counts.shape != (size, size) or size == 0:
        raise InputError(f"A confusion matrix of {size} classes cannot have shape {counts.shape}")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    numbers = {(int(row), int(column)): str(counts[row, column])
               for row, column in np.argwhere(counts > 0)}  # fmt: skip
    figure, axes = _heat_map(shares, classes, classes, numbers, "share of the true class")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    right, total = int(np.trace(counts)), int(counts.sum())
    axes.set_title(f"{right} of {total} right" + (f" ({right / total:.1%})" if total else ""))
    return figure


def accuracy_matrix(rows: Sequence[Mapping[str, Any]], figure: str) -> Figure:
    """Draw R: steps down, tasks across in the order of arrival.

    Args:
        rows: one for each task at each step, with the columns of ``accuracy_matrix.csv``.
        figure: a column with shares, such as ``oracle``; None where nothing was measured.
    """
    learned = {int(row["step"]): str(row["learned"]) for row in rows}
    steps = {step: place for place, step in enumerate(sorted(learned))}
    tasks = {task: place for place, task in enumerate(dict.fromkeys(learned.values()))}
    shares = np.full((len(steps), len(tasks)), np.nan)
    for row in rows:
        if row[figure] is not None and row["task"] in tasks:
            shares[steps[int(row["step"])], tasks[row["task"]]] = row[figure]
    numbers = {(int(row), int(column)): f"{100 * shares[row, column]:.1f}"
               for row, column in np.argwhere(~np.isnan(shares))}  # fmt: skip
    names = [f"{step} {learned[step]}" for step in steps]
    drawn, axes = _heat_map(shares, names, list(tasks), numbers, "accuracy")
    axes.set_xlabel("test images of")
    axes.set_ylabel("after learning")
    axes.set_title(f"{figure} accuracy")
    return drawn


def accuracy_curves(means: Mapping[str, Sequence[float | None]]) -> Figure:
    """Draw the means over tasks after each step.

    Args:
        means: shares by figure, ``oracle``, ``routed`` and ``identity``, one for each step; None
            where nothing was measured.
    """
    figure, axes = _chart("step", "mean over tasks")
    for name, label, colour in (
        ("oracle", "right, task told", "accent"),
        ("routed", "right, task found", "second"),
        ("identity", "task found", "muted"),
    ):
        shares = [np.nan if share is None else share for share in means[name]]
        marker = "o" if len(shares) <= _MARKED_UP_TO else None
        axes.plot(range(1, len(shares) + 1), shares, label=label, color=COLOURS[colour],
                  marker=marker, markersize=4, clip_on=False)  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _add_legend(figure)
    return figure


def abstention_curves(
    alphas: Sequence[float], known: Sequence[float], unknown: Sequence[float] | None, served: float
) -> Figure:
    """Draw the share of images that a router turns away at each alpha.

    Args:
        alphas: ascending.
        known: shares of the images of known tasks.
        unknown: of the images of unknown tasks; None where there are none.
        served: the alpha that is in use.
    """
    figure, axes = _chart("alpha", "images rejected")
    axes.plot(alphas, alphas, label="at most this, by design", color=COLOURS["muted"],
              linestyle="--", linewidth=1.2, clip_on=False)  # fmt: skip
    axes.plot(alphas, known, label="of known tasks", color=COLOURS["accent"], clip_on=False)
    if unknown is not None:
        axes.plot(alphas, unknown, label="of a task left out", color=COLOURS["second"],
                  clip_on=False)  # fmt: skip
    if alphas[0] <= served <= alphas[-1]:
        axes.axvline(served, color=COLOURS["muted"], linestyle=":", linewidth=1.2, clip_on=False)
        axes.annotate(f"served: α = {100 * served:g} %", (served, 1), xytext=(4, -8),
                      textcoords="offset points", color=COLOURS["muted"], fontsize=9)  # fmt: skip
    axes.set_xlim(alphas[0], alphas[-1])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    _add_legend(figure)
    return figure


def pareto(
    trials: Sequence[tuple[int, float, bool]], *, chosen: tuple[int, float], title: str
) -> Figure:
    """Draw the trials of a search: what they cost against what they reached.

    Args:
        trials: parameters, accuracy, and whether no other trial is better at its cost.
        chosen: parameters and accuracy of the winner.
        title: above the picture.
    """
    figure = Figure(figsize=(6.0, 4.0), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for on_front, colour in ((False, "0.65"), (True, "tab:blue")):
        xs = [parameters for parameters, _, front in trials if front is on_front]
        ys = [100.0 * accuracy for _, accuracy, front in trials if front is on_front]
        label = "on the front" if on_front else "other trials"
        axes.scatter(xs, ys, s=28, label=label, color=colour)
    axes.scatter([chosen[0]], [100.0 * chosen[1]], s=130, facecolors="none",
                 edgecolors="tab:red", linewidths=1.5, label="chosen")  # fmt: skip
    axes.set_xlabel("trained parameters, without the head")
    axes.set_ylabel("validation accuracy (%)")
    axes.set_title(_plain(title))
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def _heat_map(
    shares: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    numbers: Mapping[tuple[int, int], str],
    label: str,
) -> tuple[Figure, Axes]:
    """Draw shares from 0 to 1 as colours, and as numbers while they fit the cells."""
    width = min(max(3.6, 2.4 + 0.4 * len(columns)), 24.0)
    height = min(max(3.2, 1.6 + 0.32 * len(rows)), 24.0)
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    small = max(len(rows), len(columns)) <= _NUMBERED_UP_TO
    for names, set_ticks, rotation in ((columns, axes.set_xticks, 90), (rows, axes.set_yticks, 0)):
        ticks = range(0, len(names), -(-len(names) // _LEGIBLE))
        labels = [_plain(_shortened(names[tick])) for tick in ticks]
        set_ticks(ticks, labels, rotation=rotation, fontsize=9 if small else 7)
    for (row, column), text in numbers.items() if small else ():
        colour = "white" if shares[row, column] > _DARK else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    return figure, axes


def _chart(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """Begin a chart of shares from 0 to 1 that fits a page of any scheme."""
    figure = Figure(figsize=(7.2, 3.2), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylim(0.0, 1.0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.grid(axis="y", color=COLOURS["rule"], clip_on=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(COLOURS["muted"])
    axes.tick_params(length=0, labelcolor=COLOURS["muted"])
    axes.set_xlabel(x_label, color=COLOURS["muted"])
    axes.set_ylabel(y_label, color=COLOURS["muted"])
    return figure, axes


def _add_legend(figure: Figure) -> None:
    figure.legend(loc="outside upper left", ncols=3, frameon=False, labelcolor="linecolor")


def _shortened(name: str) -> str:
    return name if len(name) <= _LABEL_CHARACTERS else f"{name[: _LABEL_CHARACTERS - 1]}…"


def _plain(text: str) -> str:
    """Let a dollar sign be one: matplotlib would start a formula."""
    return text.replace("$", r"\$")
