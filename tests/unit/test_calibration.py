"""The calibration error: near 0 for a calibrated version of any number of images, in any order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from adapterbank.release.calibration import Calibration, calibration_error

GATE = 0.05  # a limit that somebody may set


def estimates(images: int, gap: float, repeats: int = 200, least: float = 0.3) -> list[Calibration]:
    """Estimate the error of versions that are ``gap`` too sure of every answer."""
    generator = np.random.default_rng([images, round(100 * gap)])
    found = []
    for _ in range(repeats):
        said = generator.uniform(least, 1.0, images)
        one = calibration_error(said, generator.random(images) < said - gap)
        assert one is not None
        found.append(one)
    return found


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


def uncertain(images: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Images of a few confidences only, in the order of their classes."""
    generator = np.random.default_rng(images)
    said = np.sort(generator.choice([0.5, 0.8, 1.0], images))
    return said, generator.random(images) < said


@pytest.mark.parametrize("images", [20, 80, 200])
def test_a_calibrated_version_has_almost_no_error_and_passes_any_gate(images: int) -> None:
    """15 bins say 0.09 to 0.14 of 80 to 200 images."""
    found = estimates(images, 0.0)
    assert float(np.mean([one.error for one in found])) < 0.05
    # A lower bound at a level of 2.5 %, whose distribution is a little skewed.
    assert share([one.interval[0] > 0.0 for one in found]) <= 0.08
    assert share([one.interval[0] > GATE for one in found]) <= 0.05


@pytest.mark.parametrize("images", [80, 200])
@pytest.mark.parametrize("gap", [0.1, 0.2])
def test_the_interval_has_the_error_as_often_as_it_says(images: int, gap: float) -> None:
    found = estimates(images, gap)
    assert share([one.interval[0] <= gap <= one.interval[1] for one in found]) >= 0.91
    assert float(np.mean([one.error for one in found])) == pytest.approx(gap, abs=0.03)


def test_a_version_that_is_far_too_sure_is_found() -> None:
    assert share([one.interval[0] > GATE for one in estimates(200, 0.2)]) > 0.95


@given(st.integers(2, 60), st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(images: int, random: object) -> None:
    said, right = uncertain(images)
    order = np.random.default_rng(random.getrandbits(32)).permutation(images)  # type: ignore[attr-defined]
    assert calibration_error(said, right) == calibration_error(said[order], right[order])


def test_errors_by_hand() -> None:
    sure_and_wrong = calibration_error(np.ones(10), np.zeros(10, dtype=bool))
    sure_and_right = calibration_error(np.ones(10), np.ones(10, dtype=bool))
    assert sure_and_wrong is not None
    assert sure_and_wrong.error == 1.0
    assert sure_and_right == Calibration(error=0.0, interval=(0.0, 0.0))
    # 7 of 10 right at 0.8: nine times the mean gap's square, less what an image does with itself.
    gaps = np.repeat([0.2, -0.8], [7, 3])
    squared = (gaps.sum() ** 2 - (gaps**2).sum()) / 90
    found = calibration_error(np.full(10, 0.8), gaps > 0)
    assert found is not None
    assert found.error == pytest.approx(max(squared, 0.0) ** 0.5, abs=1e-6)


def test_of_one_image_there_is_no_error() -> None:
    assert calibration_error(np.ones(1), np.ones(1, dtype=bool)) is None


def test_many_images_are_thinned_in_the_order_of_their_confidence() -> None:
    said, right = uncertain(12_000)
    found = calibration_error(said, right)
    assert found is not None
    assert found.error < 0.03
