"""Pictures of the accuracy matrix, as bytes: a heat map of one figure, curves of all."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_NUMBERED_UP_TO: Final = 25  # steps or tasks; beyond that a number no longer fits its cell
_LEGIBLE: Final = 60  # names beyond this are thinned out
_DARK: Final = 0.6  # accuracy from which a cell is too dark for black digits
_CURVES: Final = (
    ("oracle", "right, task given", "tab:blue"),
    ("routed", "right, task found", "tab:orange"),
    ("identity", "task found", "0.45"),
)

Table = Sequence[Sequence[Any]]


def heat_map_png(table: Table, figure: str) -> bytes:
    """Draw R: steps down, tasks across in the order of arrival, accuracy as colour and number.

    Args:
        table: a header and a row for each task at each step, as ``accuracy_matrix.csv`` has them.
        figure: a column of it, such as ``oracle``.

    Returns:
        The bytes of a PNG, the same for the same input.
    """
    rows = _named(table)
    tasks = list(dict.fromkeys(row["learned"] for row in rows))
    steps = sorted({int(row["step"]) for row in rows})
    learned = {int(row["step"]): str(row["learned"]) for row in rows}
    cells = np.full((len(steps), len(tasks)), np.nan)
    for row in rows:
        if row[figure] is not None and row["task"] in tasks:
            cells[steps.index(int(row["step"])), tasks.index(row["task"])] = row[figure]
    size = (
        min(max(3.6, 1.8 + 0.55 * len(tasks)), 24.0),
        min(max(2.6, 1.6 + 0.35 * len(steps)), 24),
    )
    drawn = Figure(figsize=size, dpi=100, layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    image = axes.imshow(cells, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    drawn.colorbar(image, ax=axes, label="accuracy", shrink=0.8)
    across, down = -(-len(tasks) // _LEGIBLE), -(-len(steps) // _LEGIBLE)
    axes.set_xticks(range(0, len(tasks), across), tasks[::across], rotation=90)
    labels = [f"{step} {learned[step]}" for step in steps]
    axes.set_yticks(range(0, len(steps), down), labels[::down])
    axes.set_xlabel("test images of")
    axes.set_ylabel("after learning")
    axes.set_title(f"{figure} accuracy")
    if max(len(tasks), len(steps)) <= _NUMBERED_UP_TO:
        for place in np.argwhere(~np.isnan(cells)):
            row_index, column = (int(index) for index in place)
            value = cells[row_index, column]
            axes.text(
                column, row_index, f"{100 * value:.1f}", ha="center", va="center", fontsize=8,
                color="white" if value > _DARK else "black",
            )  # fmt: skip
    return _png(drawn)


def curves_png(table: Table) -> bytes:
    """Draw the means over tasks after each step.

    Args:
        table: as of :func:`heat_map_png`.

    Returns:
        The bytes of a PNG, the same for the same input.
    """
    rows = _named(table)
    steps = sorted({int(row["step"]) for row in rows})
    drawn = Figure(figsize=(6.0, 4.0), dpi=100, layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    for figure, label, colour in _CURVES:
        means = [_mean(rows, step, figure) for step in steps]
        axes.plot(steps, means, marker="o", label=label, color=colour)
    axes.set_xlabel("steps")
    axes.set_ylabel("mean over tasks (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="best")
    return _png(drawn)


def _named(table: Table) -> list[Mapping[str, Any]]:
    header = [str(name) for name in table[0]]
    return [dict(zip(header, row, strict=True)) for row in table[1:]]


def _mean(rows: Sequence[Mapping[str, Any]], step: int, figure: str) -> float:
    found = [row[figure] for row in rows if row["step"] == step and row[figure] is not None]
    return 100.0 * float(np.mean(found)) if found else float("nan")


def _png(drawn: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without its date and version a picture of the same numbers is the same bytes.
    drawn.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
