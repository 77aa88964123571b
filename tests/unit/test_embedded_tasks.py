"""Every embedded task, found by the catalogue, is balanced, repeatable and honest in its splits."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest

from adapterbank import catalog
from adapterbank.config.bank import Limits
from adapterbank.data.base import SPLITS
from adapterbank.data.sources import EMBEDDED
from adapterbank.data.splits import generator
from adapterbank.errors import UnknownName
from adapterbank.records import InputSpec
from benchmarks._source import load_source
from tests.task_files import data_digest

NAMES = catalog.names(EMBEDDED)
SPEC = InputSpec(size=(28, 42))


@pytest.fixture(params=NAMES)
def task(request: pytest.FixtureRequest) -> ModuleType:
    return catalog.load(EMBEDDED, str(request.param), kind="embedded task")


def build(
    task: ModuleType, split: str, count: int, seed: int = 0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    images, labels = task.build(split, count, generator(seed, task.__name__, split))
    return images, labels


def test_there_are_photographs_scans_and_rendered_tasks() -> None:
    assert {"count", "digits", "location", "orientation", "textures"} <= set(NAMES)


def test_a_task_says_what_it_is(task: ModuleType) -> None:
    assert len(set(task.CLASSES)) == len(task.CLASSES) >= 2
    assert task.DESCRIPTION
    assert set(task.SIZES) == set(SPLITS)


@pytest.mark.parametrize("split", SPLITS)
def test_images_and_labels_fit_the_contract(task: ModuleType, split: str) -> None:
    images, labels = build(task, split, 41)
    assert images.dtype == np.uint8
    assert (images.ndim, images.shape[3], len(images)) == (4, 3, 41)
    assert labels.dtype == np.int64
    assert len(labels) == 41


def test_classes_are_balanced_to_within_an_image(task: ModuleType) -> None:
    _, labels = build(task, "train", 5 * len(task.CLASSES) + 2)
    counts = np.bincount(labels, minlength=len(task.CLASSES))
    assert counts.max() - counts.min() <= 1


def test_the_same_seed_gives_the_same_images(task: ModuleType) -> None:
    (images, labels), (again, same_labels) = build(task, "val", 20), build(task, "val", 20)
    assert np.array_equal(images, again)
    assert np.array_equal(labels, same_labels)


def test_another_seed_gives_other_images(task: ModuleType) -> None:
    first, second = (build(task, "train", 20, seed)[0] for seed in (0, 1))
    assert not any(np.array_equal(one, two) for one in first for two in second)


def test_no_image_is_in_two_splits_or_twice_in_one(task: ModuleType) -> None:
    seen = [image.tobytes() for split in SPLITS for image in build(task, split, 60)[0]]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("name", ["digits", "textures"])
def test_real_images_are_divided_by_content_so_one_stream_serves_all_splits(name: str) -> None:
    task = catalog.load(EMBEDDED, name, kind="embedded task")
    seen = [
        image.tobytes()
        for split in SPLITS
        for image in task.build(split, 60, generator(0, "one stream"))[0]
    ]
    assert len(set(seen)) == len(seen)


def test_images_of_a_class_vary(task: ModuleType) -> None:
    images, labels = build(task, "train", 6 * len(task.CLASSES))
    same = images[labels == labels[0]].astype(float)
    # Levels of 255 between any two images of a class: the backdrop alone moves more.
    assert np.abs(same[:1] - same[1:]).mean(axis=(1, 2, 3)).min() > 3


def test_mean_colour_does_not_tell_the_class(task: ModuleType) -> None:
    count = 40 * len(task.CLASSES)
    train, labels = build(task, "train", min(count, task.SIZES["train"]))
    test, truth = build(task, "test", min(count, task.SIZES["test"]))
    means = train.mean(axis=(1, 2))
    centres = np.stack([means[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    distance = ((test.mean(axis=(1, 2))[:, None] - centres) ** 2).sum(axis=2)
    # Chance, and twice as much again: nothing to learn from colour.
    assert (distance.argmin(axis=1) == truth).mean() < 2.5 / len(task.CLASSES)


def test_rendered_edges_are_soft() -> None:
    location = catalog.load(EMBEDDED, "location", kind="embedded task")
    images, _ = build(location, "train", 8)
    steps = np.abs(np.diff(images.astype(int), axis=2)).max(axis=3)
    # A hard edge is one large step; a soft one has a step of middle size beside it.
    assert ((steps > 15) & (steps < 45)).sum() > 50


def test_the_object_of_location_stands_where_the_label_says() -> None:
    """Find the object as what differs most from the backdrop's median, and read its column."""
    location = catalog.load(EMBEDDED, "location", kind="embedded task")
    images, labels = build(location, "test", 80)
    grey = images.astype(float).mean(axis=3)
    odd = np.abs(grey - np.median(grey, axis=(1, 2), keepdims=True))
    odd[odd < 0.6 * odd.max(axis=(1, 2), keepdims=True)] = 0
    columns = np.arange(grey.shape[2]) + 0.5
    x = (odd.sum(axis=1) * columns).sum(axis=1) / odd.sum(axis=(1, 2))
    # Objects cut by an edge and busy backdrops move the estimate; order must survive all that.
    assert np.corrcoef(x, labels)[0, 1] > 0.9


def test_count_paints_as_many_separate_objects_as_it_says() -> None:
    measure = pytest.importorskip("skimage.measure")
    task = catalog.load(EMBEDDED, "count", kind="embedded task")
    images, labels = build(task, "test", 60)
    plain = [
        (image.astype(float), label)
        for image, label in zip(images, labels, strict=True)
        if np.abs(np.diff(image[0].astype(int), axis=0)).max() < 6  # quiet backdrops only
    ]
    assert len(plain) >= 5
    right = 0
    for image, label in plain:
        backdrop = np.median(image, axis=(0, 1))
        figure = np.abs(image - backdrop).max(axis=2) > 55
        right += int(measure.label(figure).max() == label + 1)
    assert right >= 0.8 * len(plain)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_loads_as_a_source(name: str, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    data = load_source(
        f"embedded://{name}",
        spec=SPEC,
        limits=Limits(train=30, val=16, test=20),
        seed=0,
        root=tmp_path,
        progress=lambda done, total: told.append((done, total)),
    )
    assert [len(data.split(split)) for split in SPLITS] == [30, 16, 20]
    assert tuple(data.train.images.shape[1:]) == (3, 28, 42)
    assert told[-1] == (66, 66)
    assert not list(tmp_path.iterdir())


def test_more_training_images_leave_the_test_split_alone(tmp_path: Path) -> None:
    def test_digest(train: int) -> str:
        data = load_source(
            "embedded://location",
            spec=SPEC,
            limits=Limits(train=train, val=8, test=16),
            seed=3,
            root=tmp_path,
        )
        return str(data.test.images.sum(dim=(1, 2, 3)).tolist())

    assert test_digest(16) == test_digest(48)


def test_the_seed_is_part_of_the_data(tmp_path: Path) -> None:
    digests = {
        data_digest(
            load_source(
                "embedded://textures",
                spec=SPEC,
                limits=Limits(train=26, val=13, test=13),
                seed=seed,
                root=tmp_path,
            )
        )
        for seed in (0, 1, 1)
    }
    assert len(digests) == 2


def test_an_unknown_embedded_task_lists_its_neighbours(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'textures'"):
        load_source("embedded://texture", spec=SPEC, limits=Limits(), seed=0, root=tmp_path)
