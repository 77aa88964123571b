"""A few classes of a data set as a task of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapterbank.config.bank import Limits
from adapterbank.data.base import SPLITS, TaskData
from adapterbank.data.sources import select_images
from adapterbank.data.store import load_task, save_selection
from adapterbank.data.subset import take_classes
from adapterbank.errors import UnknownName
from adapterbank.records import InputSpec

SPEC = InputSpec(size=(8, 8))


def load(classes: tuple[str, ...] | None, limits: Limits, tmp_path: Path) -> TaskData:
    """Load the digits, or some of them."""
    whole = select_images("embedded://digits", spec=SPEC, limits=Limits(), seed=0, root=tmp_path)
    if classes is not None:
        whole = take_classes(whole, classes, limits=limits, seed=0)
    save_selection(whole, tmp_path / str(limits), SPEC)
    return load_task(tmp_path / str(limits))


def test_the_images_are_those_of_the_classes_in_the_order_given(tmp_path: Path) -> None:
    whole = load(None, Limits(), tmp_path)
    few = load(("7", "2"), Limits(), tmp_path)

    assert few.classes == ("7", "2")
    assert few.source == "embedded://digits?classes=7,2"
    for name in SPLITS:
        for label, digit in ((0, 7), (1, 2)):
            got = few.split(name).images[few.split(name).labels == label]
            expected = whole.split(name).images[whole.split(name).labels == digit]
            assert torch.equal(got, expected)


def test_the_limit_counts_images_of_these_classes(tmp_path: Path) -> None:
    few = load(("0", "1", "9"), Limits(train=30, val=9, test=12), tmp_path)
    more = load(("0", "1", "9"), Limits(train=60, val=9, test=12), tmp_path)

    assert [len(few.split(name)) for name in SPLITS] == [30, 9, 12]
    assert torch.bincount(few.train.labels).tolist() == [10, 10, 10]
    # A smaller choice is part of a larger one.
    known = {image.numpy().tobytes() for image in more.train.images}
    assert {image.numpy().tobytes() for image in few.train.images} <= known


def test_a_class_nobody_knows_is_named_with_its_neighbours(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Unknown class of embedded://digits 'seven'"):
        load(("1", "seven"), Limits(train=10), tmp_path)
