"""Pictures for run pages, as bytes. Agg by object, never pyplot: threads may draw at once."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from adapterbank.errors import InputError

_NUMBERED_UP_TO: Final = 25  # classes; beyond that a count no longer fits its cell
_LABEL_CHARACTERS: Final = 24
_DARK: Final = 0.5  # share from which a cell is too dark for black digits
_LEGIBLE_CLASSES: Final = 120  # names beyond this are thinned out


def confusion_png(matrix: np.ndarray, classes: Sequence[str]) -> bytes:
    """Draw a confusion matrix.

    Colour is the share of each true class, so rare classes are as visible as common ones;
    the numbers in the cells are counts.

    Args:
        matrix: (C, C) counts, true class down, predicted class across.
        classes: C names, in the order of the rows.

    Returns:
        The bytes of a PNG, the same for the same input.

    Raises:
        InputError: the matrix is not square, or does not match the names.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    size = len(classes)
    if counts.shape != (size, size) or size == 0:
        raise InputError(f"A confusion matrix of {size} classes cannot have shape {counts.shape}")
    totals = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(totals, 1)

    side = min(max(3.2, 1.6 + 0.32 * size), 24.0)
    figure = Figure(figsize=(side + 0.8, side), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    _name_axes(axes, classes)
    if size <= _NUMBERED_UP_TO:
        _number_cells(axes, counts, share)
    right, total = int(np.trace(counts)), int(counts.sum())
    axes.set_title(f"{right} of {total} right" + (f" ({right / total:.1%})" if total else ""))

    buffer = io.BytesIO()
    # Without its date and version a picture of the same numbers is the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def pareto_png(
    trials: Sequence[tuple[int, float, bool]], *, chosen: tuple[int, float], title: str
) -> bytes:
    """Draw the trials of a search: what they cost against what they reached.

    Args:
        trials: parameters, accuracy, and whether no other trial is better at its cost.
        chosen: parameters and accuracy of the winner.
        title: above the picture.

    Returns:
        The bytes of a PNG, the same for the same input.
    """
    figure = Figure(figsize=(6.0, 4.0), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
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
    axes.set_title(title.replace("$", r"\$"))
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _name_axes(axes: Axes, classes: Sequence[str]) -> None:
    step = -(-len(classes) // _LEGIBLE_CLASSES)
    ticks = range(0, len(classes), step)
    # A dollar sign would start a formula.
    names = [_shortened(classes[i]).replace("$", r"\$") for i in ticks]
    font = 9 if len(classes) <= _NUMBERED_UP_TO else 7
    axes.set_xticks(ticks, names, rotation=90, fontsize=font)
    axes.set_yticks(ticks, names, fontsize=font)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")


def _shortened(name: str) -> str:
    return name if len(name) <= _LABEL_CHARACTERS else f"{name[: _LABEL_CHARACTERS - 1]}…"


def _number_cells(axes: Axes, counts: np.ndarray, share: np.ndarray) -> None:
    for row, column in np.argwhere(counts > 0):
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if share[row, column] > _DARK else "black",
        )
