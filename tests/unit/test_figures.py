"""Pictures of a bank: the same bytes for the same numbers, each number in its cell."""

from __future__ import annotations

import io
import re
import threading
import warnings
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from adapterbank.errors import InputError
from adapterbank.integrations.figures import (
    abstention_curves,
    accuracy_curves,
    accuracy_matrix,
    confusion,
    pareto,
    png,
    svg,
)

MEANS: dict[str, list[float | None]] = {
    "oracle": [0.9, 0.8], "routed": [0.9, None], "identity": [1.0, 0.9],
}  # fmt: skip
ALPHAS = (0.0, 0.1, 0.2)


def _counts(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 9, (size, size))


def _rows(steps: int, *, measured: bool = True) -> list[dict[str, Any]]:
    """A bank that learns a task at each step."""
    return [
        {
            "step": step,
            "learned": f"$t{step}",
            "task": f"$t{task}",
            "oracle": 0.25,
            "routed": 0.5 + task / (4 * steps) if measured else None,
        }
        for step in range(1, steps + 1)
        for task in range(1, step + 1)
    ]


def _size(figure: Figure) -> tuple[int, int]:
    with Image.open(io.BytesIO(png(figure))) as image:
        assert image.format == "PNG"
        return image.size


def _written(figure: Figure) -> list[str]:
    """What stands in the cells of a heat map, with the place of each."""
    return [
        f"{text.get_position()[0]:.0f} {text.get_position()[1]:.0f} {text.get_text()}"
        for text in figure.axes[0].texts
    ]


@pytest.mark.parametrize("size", [1, 2, 10, 26, 50, 397])
def test_any_number_of_classes_makes_a_picture(size: int) -> None:
    width, height = _size(confusion(_counts(size), [f"class {i}" for i in range(size)]))
    assert 300 <= width <= 2600
    assert 300 <= height <= 2500


def test_more_classes_get_more_room() -> None:
    widths = [_size(confusion(_counts(size), [str(i) for i in range(size)]))[0]
              for size in (4, 16, 50)]  # fmt: skip
    assert widths[0] < widths[1] < widths[2]


def test_the_same_counts_are_the_same_bytes() -> None:
    drawn = png(confusion(_counts(3), "abc"))
    assert png(confusion(_counts(3), "abc")) == drawn
    assert png(confusion(_counts(3).T, "abc")) != drawn


def test_the_cells_of_a_confusion_carry_the_counts_that_are_not_zero() -> None:
    assert _written(confusion(np.array([[3, 1], [0, 2]]), "ab")) == ["0 0 3", "1 0 1", "1 1 2"]
    assert _written(confusion(_counts(26), [str(i) for i in range(26)])) == []


def test_a_class_nobody_showed_is_drawn_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png(confusion(np.zeros((2, 2), dtype=np.int64), ("a", "b")))


@pytest.mark.parametrize("name", ["$x_1$", "$", "a" * 300, "", "_y^2", "50 %"])
def test_any_name_can_label_a_class(name: str) -> None:
    assert png(confusion(_counts(2), (name, "b")))


@pytest.mark.parametrize(
    ("shape", "classes"), [((2, 3), "ab"), ((3, 3), "ab"), ((4,), "ab"), ((0, 0), "")]
)
def test_a_matrix_that_does_not_fit_its_names_is_refused(
    shape: tuple[int, ...], classes: str
) -> None:
    with pytest.raises(InputError, match="cannot have shape"):
        confusion(np.zeros(shape, dtype=np.int64), classes)


@pytest.mark.parametrize("steps", [1, 30])
def test_equal_matrices_give_equal_pictures_of_any_size(steps: int) -> None:
    drawn = png(accuracy_matrix(_rows(steps), "routed"))
    assert png(accuracy_matrix(_rows(steps), "routed")) == drawn
    assert png(accuracy_matrix(_rows(steps), "oracle")) != drawn


def test_the_cells_of_a_small_matrix_carry_their_numbers() -> None:
    assert _written(accuracy_matrix(_rows(2), "oracle")) == ["0 0 25.0", "0 1 25.0", "1 1 25.0"]


def test_what_was_not_measured_is_drawn_as_nothing() -> None:
    figure = accuracy_matrix(_rows(2, measured=False), "routed")
    assert _written(figure) == []
    assert png(figure)


@pytest.mark.parametrize("steps", [1, 2, 40])
def test_curves_of_any_length_are_drawn(steps: int) -> None:
    means: dict[str, list[float | None]] = {
        "oracle": [0.9] * steps, "routed": [None] * steps, "identity": [1.0] * steps,
    }  # fmt: skip
    assert png(accuracy_curves(means)) == png(accuracy_curves(means))


def test_abstention_is_drawn_with_the_alpha_that_is_served_if_it_is_in_sight() -> None:
    inside = abstention_curves(ALPHAS, ALPHAS, ALPHAS, 0.05).axes[0]
    assert [text.get_text() for text in inside.texts] == ["served: α = 5 %"]
    assert len(inside.lines) == 4
    outside = abstention_curves(ALPHAS, ALPHAS, None, 0.5).axes[0]
    assert list(outside.texts) == []
    assert len(outside.lines) == 2


def test_a_front_is_drawn_under_any_title() -> None:
    trials = [(10, 0.5, True), (20, 0.4, False)]
    assert png(pareto(trials, chosen=(10, 0.5), title="$: 2 trials"))


@pytest.mark.parametrize(
    "figure",
    [accuracy_curves(MEANS), abstention_curves(ALPHAS, ALPHAS, ALPHAS, 0.05)],
    ids=["accuracy", "abstention"],
)
def test_an_svg_is_an_element_of_a_page_with_words_as_text(figure: Figure) -> None:
    text = svg(figure, "A <title> & more")
    root = ET.fromstring(text)  # noqa: S314  # of our own
    assert root.attrib.keys() == {"class", "role", "viewBox"}
    assert root[0].text == "A <title> & more"
    words = {part.text for part in root.iter("text")}
    assert "0 %" in words
    assert words & {"step", "alpha"}
    assert not re.search(r"#[0-9a-f]{6}|url\(|http|font-family|<style|<metadata", text)
    assert svg(figure, "A <title> & more") == text


def test_what_a_name_holds_is_no_markup_in_an_svg() -> None:
    figure = Figure()
    Axes.text(figure.add_subplot(), 0, 0, '<script id="x">&')
    root = ET.fromstring(svg(figure, "t"))  # noqa: S314  # of our own
    assert '<script id="x">&' in {part.text for part in root.iter("text")}
    assert not list(root.iter("script"))


def test_threads_may_draw_at_once() -> None:
    def draw() -> tuple[bytes, str]:
        return png(confusion(_counts(5), "abcde")), svg(accuracy_curves(MEANS), "means")

    expected = draw()
    pictures: list[tuple[bytes, str]] = []
    threads = [threading.Thread(target=lambda: pictures.append(draw())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert pictures == [expected] * 4
