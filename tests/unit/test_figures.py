"""The confusion picture: a PNG for any number of classes, the same for the same counts."""

from __future__ import annotations

import io
import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from adapterbank.errors import InputError
from adapterbank.integrations.figures import confusion_png


def _matrix(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 9, (size, size))


@pytest.mark.parametrize("size", [1, 2, 10, 26, 50, 397])
def test_any_number_of_classes_makes_a_picture(size: int) -> None:
    with Image.open(
        io.BytesIO(confusion_png(_matrix(size), [f"class {i}" for i in range(size)]))
    ) as im:
        assert im.format == "PNG"
        assert 300 <= im.width <= 2600
        assert 300 <= im.height <= 2500


def test_more_classes_get_more_room() -> None:
    def width(size: int) -> int:
        with Image.open(
            io.BytesIO(confusion_png(_matrix(size), [str(i) for i in range(size)]))
        ) as im:
            return im.width

    assert width(4) < width(16) < width(50)


def test_the_same_counts_are_the_same_bytes() -> None:
    assert confusion_png(_matrix(3), "abc") == confusion_png(_matrix(3), "abc")
    assert confusion_png(_matrix(3), "abc") != confusion_png(_matrix(3).T, "abc")


def test_a_class_nobody_showed_is_drawn_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        confusion_png(np.zeros((2, 2), dtype=np.int64), ("a", "b"))


@pytest.mark.parametrize("name", ["$x_1$", "$", "a" * 300, "", "_y^2", "50 %"])
def test_any_name_can_label_a_class(name: str) -> None:
    assert confusion_png(_matrix(2), (name, "b"))


@pytest.mark.parametrize(
    ("shape", "classes"), [((2, 3), "ab"), ((3, 3), "ab"), ((4,), "ab"), ((0, 0), "")]
)
def test_a_matrix_that_does_not_fit_its_names_is_refused(
    shape: tuple[int, ...], classes: str
) -> None:
    with pytest.raises(InputError, match="cannot have shape"):
        confusion_png(np.zeros(shape, dtype=np.int64), classes)


def test_threads_may_draw_at_once() -> None:
    expected = confusion_png(_matrix(5), "abcde")
    pictures: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: pictures.append(confusion_png(_matrix(5), "abcde")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert pictures == [expected] * 4
