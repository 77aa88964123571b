"""Which images versions are judged on, and what became of the classes of a champion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapterbank.data.base import Split, TaskData, image_digests
from adapterbank.errors import IntegrityError
from adapterbank.registry.seen import pack_seen, parse_seen
from adapterbank.registry.verdicts import ClassChange
from adapterbank.release.fresh import Learned, class_change, fresh_images

IMAGES = 12


def split(first: int) -> Split:
    """Make images of one grey each, none like another."""
    greys = torch.arange(first, first + IMAGES, dtype=torch.uint8)
    pixels = greys[:, None, None, None].expand(IMAGES, 3, 2, 2).contiguous()
    return Split(images=pixels, labels=torch.zeros(IMAGES, dtype=torch.int64))


DATA = TaskData(classes=("a", "b"), source="greys", train=split(0), val=split(50), test=split(100))
DIGESTS = {name: image_digests(DATA.split(name).images) for name in ("train", "val", "test")}


def learned(**rows: int) -> Learned:
    """Make what a version learned from: so many of the first images of some splits."""
    found = (digest for name, count in rows.items() for digest in DIGESTS[name][:count])
    return Learned(digests=frozenset(found), stated=True)


def test_a_digest_is_of_the_pixels_alone() -> None:
    image = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 2, 2)
    (digest,) = image_digests(image)
    assert image_digests(image.flip(3).flip(3)) == (digest,)
    assert image_digests(image.flip(3)) != (digest,)
    assert len(digest) == 16
    assert image_digests(image[:0]) == ()


def test_validation_images_are_what_versions_are_judged_on() -> None:
    (fresh,) = fresh_images(DATA, learned(train=12), [learned(train=12)], 5)
    assert (fresh.split, fresh.total) == ("val", IMAGES)


def test_what_a_champion_learned_from_is_left_out() -> None:
    (fresh,) = fresh_images(DATA, learned(), [learned(val=3), learned(val=2)], 5)
    assert (fresh.split, fresh.rows.tolist()) == ("val", [False] * 3 + [True] * 9)


@pytest.mark.parametrize("champion", [0, 10])
def test_where_too_few_validation_images_are_left_test_images_are_taken(champion: int) -> None:
    fresh, *others = fresh_images(DATA, learned(val=10), [learned(val=champion)], 5)
    assert (fresh.split, fresh.total) == ("test", IMAGES)
    # It is the better on images that it has learned from, if it really has.
    assert [(one.split, one.total) for one in others] == [("val", IMAGES)] * (champion == 0)


def test_where_too_few_images_are_left_the_split_that_has_most_is_named() -> None:
    fresh, *_ = fresh_images(DATA, learned(val=11, test=9), [], 5)
    assert (fresh.split, fresh.total) == ("test", 3)
    fresh, *_ = fresh_images(DATA, learned(val=9, test=11), [], 5)
    assert (fresh.split, fresh.total) == ("val", 3)


@given(st.integers(0, IMAGES), st.integers(0, IMAGES), st.integers(0, IMAGES))
def test_no_word_of_its_own_takes_an_image_away_from_the_judgement(
    val: int, test: int, champion: int
) -> None:
    served = learned(val=champion)
    fresh = fresh_images(DATA, learned(val=val, test=test), [served], 3)
    judged = {image for one in fresh for image in np.flatnonzero(one.rows) if one.split == "val"}
    left = set(range(champion, IMAGES))
    assert judged == left if len(left) >= 3 else judged <= left


@given(st.sets(st.binary(min_size=16, max_size=16)))
def test_what_is_packed_is_read_whatever_its_order(digests: set[bytes]) -> None:
    data = pack_seen([*digests, *digests])
    assert parse_seen(data, where="a test") == digests


@pytest.mark.parametrize(
    "data", [b"x", bytes(15), bytes(32), bytes(17), bytes([1] * 16 + [0] * 16)], ids=str
)
def test_what_is_no_ascending_list_of_digests_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"pets@1/seen_images\.bin is no ascending list"):
        parse_seen(data, where="pets@1/seen_images.bin")


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        ("ab", "ba", None),
        ("ab", "abc", ClassChange(added=("c",), removed=())),
        ("abc", "ab", ClassChange(added=(), removed=("c",))),
        ("abc", "abd", ClassChange(added=("d",), removed=("c",))),
    ],
)
def test_classes_that_came_and_went_are_named(
    before: str, now: str, change: ClassChange | None
) -> None:
    assert class_change(before, now) == change


def test_a_class_is_renamed_where_the_champion_takes_most_of_it_for_one_that_is_gone() -> None:
    truth = ["ox"] * 5 + ["dog"] * 4 + ["cat"] * 3
    answers = ["cow"] * 3 + ["cat"] * 2 + ["cow"] * 2 + ["pig"] * 2 + ["cat"] * 3
    found = class_change(("cat", "cow", "pig"), ("cat", "dog", "ox"), truth, answers)
    assert found == ClassChange(added=("dog",), removed=("pig",), renamed=(("cow", "ox"),))
    assert str(found) == "lacks pig and adds dog and calls cow ox"


class Counted(str):
    """A name that counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other) is True

    __hash__ = str.__hash__


def test_many_classes_are_not_each_compared_with_all_others() -> None:
    before = [Counted(f"old {number}") for number in range(300)]
    now = [Counted(f"new {number}") for number in range(300)]
    Counted.compared = 0
    found = class_change(before, now, now, before)
    assert found == ClassChange(added=(), removed=(), renamed=tuple(zip(before, now, strict=True)))
    assert Counted.compared < 30 * len(now)
