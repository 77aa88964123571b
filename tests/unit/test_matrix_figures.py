"""Pictures of the accuracy matrix: the same bytes for the same numbers, each in its cell."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.axes import Axes

from adapterbank.integrations.matrix_figures import curves_png, heat_map_png

HEADER = ("step", "learned", "kind", "task", "version", "oracle", "routed", "identity", "abstained")
PNG = b"\x89PNG\r\n\x1a\n"


def table(steps: int, *, measured: bool = True) -> list[tuple[Any, ...]]:
    """A bank that learns a task at each step."""
    rows: list[tuple[Any, ...]] = [HEADER]
    for step in range(1, steps + 1):
        for task in range(1, step + 1):
            routed = 0.5 + task / (4 * steps) if measured else None
            rows.append((step, f"$t{step}", "new task", f"$t{task}", 1, 0.25, routed, routed, 0.0))
    return rows


@pytest.mark.parametrize("steps", [1, 30])
def test_equal_matrices_give_equal_pictures_of_any_size(steps: int) -> None:
    drawn = [heat_map_png(table(steps), "routed"), curves_png(table(steps))]
    assert [one[:8] for one in drawn] == [PNG, PNG]
    assert drawn == [heat_map_png(table(steps), "routed"), curves_png(table(steps))]
    assert heat_map_png(table(steps), "oracle") != drawn[0]


def test_what_was_not_measured_is_drawn_as_nothing() -> None:
    for drawn in (heat_map_png(table(2, measured=False), "routed"),
                  curves_png(table(2, measured=False))):  # fmt: skip
        assert drawn[:8] == PNG


def test_the_cells_of_a_small_matrix_carry_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    text = Axes.text

    def noting(self: Axes, x: float, y: float, s: str, **options: str | int) -> object:
        written.append(f"{x:.0f} {y:.0f} {s}")
        return text(self, x, y, s, **options)  # type: ignore[arg-type]  # of matplotlib's own

    monkeypatch.setattr(Axes, "text", noting)
    heat_map_png(table(2), "oracle")
    assert written == ["0 0 25.0", "0 1 25.0", "1 1 25.0"]
