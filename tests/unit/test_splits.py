"""Choices of images are stratified, exact in size, nested and the same on every machine."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbank.data.splits import choose, generator, partition, place, position, vtab

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=200)
SEEDS = st.integers(0, 2**32)


@given(labels=LABELS, count=st.integers(1, 250), seed=SEEDS)
def test_a_choice_has_exactly_the_size_asked_for(labels: list[int], count: int, seed: int) -> None:
    chosen = choose(labels, count, generator(seed))
    assert len(set(chosen.tolist())) == min(count, len(labels))
    assert chosen.tolist() == sorted(chosen.tolist())


@given(labels=LABELS, count=st.integers(1, 200), seed=SEEDS)
def test_classes_keep_their_proportions_to_within_an_image(
    labels: list[int], count: int, seed: int
) -> None:
    known = np.asarray(labels)
    chosen = known[choose(labels, count, generator(seed))]
    classes = np.unique(known)
    count = min(count, len(known))
    for label in classes:
        exact = count * np.mean(known == label)
        # The image that each class is promised may cost the others their share of it.
        assert abs(np.sum(chosen == label) - exact) <= 1 + len(classes) * np.mean(known == label)


@given(labels=LABELS, seed=SEEDS, data=st.data())
def test_every_class_is_chosen_once_there_is_room(
    labels: list[int], seed: int, data: st.DataObject
) -> None:
    classes = set(labels)
    count = data.draw(st.integers(len(classes), max(len(classes), len(labels))))
    chosen = choose(labels, count, generator(seed))
    assert {labels[row] for row in chosen} == classes


@given(labels=LABELS, counts=st.tuples(st.integers(1, 99), st.integers(1, 99)), seed=SEEDS)
def test_a_smaller_choice_is_part_of_a_larger_one(
    labels: list[int], counts: tuple[int, int], seed: int
) -> None:
    small, large = (choose(labels, count, generator(seed)) for count in sorted(counts))
    assert set(small.tolist()) <= set(large.tolist())


def test_no_limit_chooses_all() -> None:
    assert choose([0, 1, 0], None, generator(0)).tolist() == [0, 1, 2]


@given(labels=LABELS, counts=st.lists(st.integers(0, 90), min_size=1, max_size=4), seed=SEEDS)
def test_parts_are_disjoint_and_of_the_sizes_asked_for(
    labels: list[int], counts: list[int], seed: int
) -> None:
    parts = partition(labels, counts, generator(seed))
    rows = np.concatenate(parts).tolist()
    assert len(set(rows)) == len(rows) == min(sum(counts), len(labels))
    assert set(rows) <= set(range(len(labels)))
    left = len(labels)
    for part, count in zip(parts, counts, strict=True):
        assert len(part) == min(count, left)
        left -= len(part)


def test_a_class_of_one_image_is_in_the_first_part() -> None:
    labels = [0] * 50 + [1]
    for seed in range(20):
        first, _, _ = partition(labels, (31, 10, 10), generator(seed))
        assert 50 in first


@pytest.mark.parametrize("classes", [2, 47, 102])
def test_vtab_takes_800_and_200_class_by_class(classes: int) -> None:
    labels = np.arange(40 * 102) % classes
    train, val = vtab(labels, generator(3))
    assert (len(train), len(val)) == (800, 200)
    assert not set(train.tolist()) & set(val.tolist())
    counts = np.bincount(labels[train], minlength=classes)
    assert counts.max() - counts.min() <= 1
    assert counts.min() >= 1


def test_vtab_divides_a_smaller_set_in_the_same_ratio() -> None:
    train, val = vtab([0, 1] * 50, generator(0))
    assert (len(train), len(val)) == (80, 20)


def test_a_stream_depends_on_seed_and_name_only() -> None:
    draws = {
        (seed, name): generator(seed, *name).integers(0, 2**62)
        for seed in (0, 1)
        for name in (("a",), ("b",), ("a", "b"))
    }
    assert len(set(draws.values())) == len(draws)
    assert draws[1, ("a", "b")] == generator(1, "a", "b").integers(0, 2**62)


def test_choices_are_the_same_on_every_machine() -> None:
    # Recorded once (numpy 2.4, PCG64): a change here silently changes every task's data.
    labels = np.arange(60) % 3
    assert choose(labels, 6, generator(7, "golden")).tolist() == [0, 19, 26, 32, 34, 45]


# --- places by hash ----------------------------------------------------------------------------

SHARES = {"train": 3, "test": 1, "val": 1}
IMAGES = st.dictionaries(st.binary(min_size=1, max_size=4), st.integers(0, 5), max_size=80)


def places(images: dict[bytes, int], seed: int) -> dict[bytes, str]:
    """In which split each image stands, given the class of each."""
    positions = [position(name, seed) for name in images]
    placed = place(positions, list(images.values()), SHARES)
    names = list(images)
    found = {names[row]: split for split, rows in placed.items() for row in rows}
    assert sum(map(len, placed.values())) == len(found) == len(images)
    return found


def natural(name: bytes, seed: int) -> str:
    spot = position(name, seed)
    return "train" if spot < 0.6 else "test" if spot < 0.8 else "val"


@given(images=IMAGES, more=IMAGES, seed=SEEDS)
def test_growth_moves_no_image_of_a_class_that_every_split_has(
    images: dict[bytes, int], more: dict[bytes, int], seed: int
) -> None:
    before, after = places(images, seed), places({**more, **images}, seed)
    kinds = {label: {natural(n, seed) for n in images if images[n] == label} for label in range(6)}
    stay = {name for name in images if len(kinds[images[name]]) == 3}
    assert all(before[name] == after[name] == natural(name, seed) for name in stay)


@given(images=IMAGES, seed=SEEDS)
def test_a_class_has_at_most_two_images_elsewhere_than_their_hash_says(
    images: dict[bytes, int], seed: int
) -> None:
    found = places(images, seed)
    moved = Counter(images[name] for name in images if found[name] != natural(name, seed))
    assert max(moved.values(), default=0) <= 2


@given(images=IMAGES, seed=SEEDS)
def test_each_class_is_in_train_and_with_three_images_in_every_split(
    images: dict[bytes, int], seed: int
) -> None:
    found = places(images, seed)
    for label in set(images.values()):
        own = {found[name] for name in images if images[name] == label}
        number = list(images.values()).count(label)
        assert own >= (set(SHARES) if number >= 3 else {"train"})


@given(images=IMAGES, seed=SEEDS)
def test_no_split_is_empty_while_classes_have_images_to_spare(
    images: dict[bytes, int], seed: int
) -> None:
    classes = len(set(images.values()))
    spare = len(images) - classes
    assert len(set(places(images, seed).values())) >= min(3, min(1, classes) + min(2, spare))


def test_places_are_the_same_on_every_machine() -> None:
    # Recorded once: a change here silently divides every folder anew.
    assert [round(position(bytes([i]), 42), 6) for i in range(3)] == [
        0.495015, 0.475166, 0.936845,
    ]  # fmt: skip
