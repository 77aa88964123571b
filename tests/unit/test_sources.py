"""Folders and published sets become honest splits, or one error that names everything wrong."""

from __future__ import annotations

import gc
import urllib.error
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from PIL.ImageFile import ImageFile

from adapterbank.config.bank import Limits
from adapterbank.data import published
from adapterbank.data.base import SPLITS, TaskData, pixel_digest
from adapterbank.data.folders import Choices
from adapterbank.data.left_out import LeftOut
from adapterbank.data.sources import select_images
from adapterbank.errors import ConfigError, FetchError, InputError, UnknownName
from adapterbank.records import InputSpec
from benchmarks._source import load_source
from tests.task_files import data_digest

SPEC = InputSpec(size=(6, 8))
KINDS = ("ant", "bee", "cat")


def paint(path: Path, seed: int, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def fill(root: Path, classes: Iterable[str] = KINDS, count: int = 10, start: int = 0) -> Path:
    seed = start
    for name in classes:
        for i in range(count):
            paint(root / name / f"{i:03}.png", seed)
            seed += 1
    return root


def load(root: Path, uri: str = "pets", **options: object) -> TaskData:
    arguments: dict[str, object] = {"spec": SPEC, "limits": Limits(), "seed": 0, "root": root}
    return load_source(uri, **(arguments | options))  # type: ignore[arg-type]


def sizes(data: TaskData) -> list[int]:
    return [len(data.split(split)) for split in SPLITS]


# --- folders without splits --------------------------------------------------------------------


def test_a_folder_of_classes_is_divided_about_60_20_20(tmp_path: Path) -> None:
    for label, name in enumerate(("ant", "bee")):
        for number in range(300):
            path = tmp_path / "pets" / name / f"{number}.pgm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"P5 2 2 255 " + bytes([label, number % 256, number // 256, 7]))
    data = load(tmp_path, spec=InputSpec(size=(2, 2), interpolation="nearest"))
    assert data.classes == ("ant", "bee")
    assert sum(sizes(data)) == 600
    # Drawn lots: three deviations of 300 a class are 26 of 180 and 21 of 60.
    for split, expected in (("train", 180), ("val", 60), ("test", 60)):
        counts = torch.bincount(data.split(split).labels)
        assert (counts - expected).abs().max() <= 3 * (expected * (1 - expected / 300)) ** 0.5
    assert (data.source, "60 : 20 : 20 by pixels and seed 0" in data.notes) == ("pets", True)


def split_of_each(data: TaskData) -> dict[bytes, str]:
    """In which split each image stands, by its pixels."""
    return {pixel_digest(image): split for split in SPLITS for image in data.split(split).images}


@pytest.mark.parametrize("given", [False, True], ids=["flat", "train without val"])
def test_a_folder_that_grows_moves_no_image(tmp_path: Path, *, given: bool) -> None:
    pets = tmp_path / "pets" / "train" if given else tmp_path / "pets"
    fill(pets, count=30)
    if given:
        fill(tmp_path / "pets" / "test", count=2, start=1000)
    before = split_of_each(load(tmp_path))
    for seed in range(200, 240):  # names before, among and after those there were
        paint(pets / KINDS[seed % 3] / f"{seed % 7}{seed}.png", seed)
    paint(pets / "dodo" / "1.png", 300)
    after = split_of_each(load(tmp_path))
    assert len(after) == len(before) + 41
    assert before.items() <= after.items()


def test_a_limit_takes_most_of_the_same_images_of_a_folder_that_grows(tmp_path: Path) -> None:
    fill(tmp_path / "pets", count=30)
    limits = Limits(train=30, val=6, test=6)
    before = split_of_each(load(tmp_path, limits=limits))
    for seed in range(200, 209):  # a tenth more
        paint(tmp_path / "pets" / KINDS[seed % 3] / f"{seed}.png", seed)
    after = split_of_each(load(tmp_path, limits=limits))
    assert len(before.items() & after.items()) >= 0.75 * len(before)


def test_an_absolute_path_gives_the_same_data(tmp_path: Path) -> None:
    fill(tmp_path / "pets")
    absolute = load(tmp_path / "elsewhere", str(tmp_path / "pets"))
    assert data_digest(absolute) == data_digest(load(tmp_path))


@pytest.mark.parametrize("uri", ["../far/pets", "{tmp}/far/pets", "../far/./pets/"])
def test_a_folder_outside_the_bank_is_known_by_its_own_name_alone(tmp_path: Path, uri: str) -> None:
    fill(tmp_path / "far" / "pets")
    (tmp_path / "bank").mkdir()
    data = load(tmp_path / "bank", uri.format(tmp=tmp_path))
    assert data.source == "folder://pets"


@pytest.mark.parametrize("uri", ["photos/pets", "./photos/pets", "{tmp}/photos/pets"])
def test_a_folder_of_the_bank_is_known_by_its_place_in_it(tmp_path: Path, uri: str) -> None:
    fill(tmp_path / "photos" / "pets")
    assert load(tmp_path, uri.format(tmp=tmp_path)).source == "photos/pets"


def test_a_link_in_the_bank_is_a_folder_of_the_bank(tmp_path: Path) -> None:
    fill(tmp_path / "far")
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / "pets").symlink_to(tmp_path / "far")
    assert load(tmp_path / "bank").source == "pets"


def test_the_seed_decides_what_stands_where(tmp_path: Path) -> None:
    fill(tmp_path / "pets")
    first, again, other = (data_digest(load(tmp_path, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_pixels_do_not_depend_on_the_order_in_which_files_were_made(tmp_path: Path) -> None:
    fill(tmp_path / "one" / "pets")
    for seed in reversed(range(30)):
        paint(tmp_path / "two" / "pets" / KINDS[seed // 10] / f"{seed % 10:03}.png", seed)
    assert data_digest(load(tmp_path / "one")) == data_digest(load(tmp_path / "two"))


def test_limits_hold_and_take_all_there_is(tmp_path: Path) -> None:
    fill(tmp_path / "pets")
    whole = sizes(load(tmp_path))
    for limits in ({"train": 3, "val": 2, "test": 2}, {"train": 17, "val": 3, "test": 30}):
        found = sizes(load(tmp_path, limits=Limits(**limits)))
        assert found == [
            min(limit, size) for limit, size in zip(limits.values(), whole, strict=True)
        ]


def test_copies_pixel_by_pixel_are_used_once(tmp_path: Path) -> None:
    pets = fill(tmp_path / "pets")
    for i in range(10):
        Image.open(pets / "ant" / f"{i:03}.png").save(pets / "ant" / f"copy{i}.tif")
    Image.open(pets / "ant" / "000.png").save(pets / "bee" / "copy.bmp")
    chosen = select_images("pets", spec=SPEC, limits=Limits(), seed=0, root=tmp_path)
    assert sum(len(rows.labels) for rows in chosen.splits.values()) == 30
    assert [(one.reason, one.count, one.examples[0]) for one in chosen.left_out] == [
        ("copies of an image of another class", 1, "bee/copy.bmp = ant/000.png"),
        ("copies of another image", 10, "ant/copy0.tif = ant/000.png"),
    ]


def test_other_files_and_hidden_ones_are_no_images(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    (root / "README.md").write_text("about")
    (root / "ant" / "notes.txt").write_text("about ants")
    (root / "ant" / ".thumb.png").write_bytes(b"")
    (root / ".cache").mkdir()
    assert sum(sizes(load(tmp_path))) == 30


def test_images_may_stand_deeper_and_have_any_mode(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    for seed, (mode, ending) in enumerate(
        [("L", "png"), ("CMYK", "JPG"), ("P", "gif"), ("RGBA", "webp"), ("I;16", "tif")]
    ):
        deep = root / "ant" / "a" / "b" / f"x.{ending}"
        paint(deep, 100 + seed, "L" if mode == "I;16" else mode)
    assert sum(sizes(load(tmp_path))) == 35


def test_unreadable_images_are_listed_all_together(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    (root / "ant" / "empty.png").write_bytes(b"")
    (root / "bee" / "text.jpg").write_text("no image")
    with pytest.raises(InputError, match="2 images cannot be decoded") as caught:
        load(tmp_path)
    assert "empty.png: is empty" in str(caught.value)
    assert "text.jpg: is not an image" in str(caught.value)


def test_progress_counts_every_image_when_it_is_placed_and_when_it_is_stored(
    tmp_path: Path,
) -> None:
    fill(tmp_path / "pets")
    told: list[tuple[int, int]] = []
    load(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 30) for i in range(1, 31)] * 2


# --- folders with splits -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("train800", "val200", "test"), ("train", "valid", "test")]
)
def test_given_splits_are_kept(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for i, (name, count) in enumerate(zip(names, (6, 2, 3), strict=True)):
        fill(tmp_path / "pets" / name, count=count, start=100 * i)
    data = load(tmp_path)
    assert (data.classes, sizes(data)) == (KINDS, [18, 6, 9])


def test_a_missing_val_split_is_taken_from_train(tmp_path: Path) -> None:
    fill(tmp_path / "pets" / "train", count=10)
    fill(tmp_path / "pets" / "test", count=3, start=100)
    data = load(tmp_path)
    assert (sum(sizes(data)[:2]), sizes(data)[2]) == (30, 9)
    assert "80 : 20" in data.notes


def test_copies_do_not_straddle_a_val_split_taken_from_train(tmp_path: Path) -> None:
    train = fill(tmp_path / "pets" / "train", count=10)
    fill(tmp_path / "pets" / "test", count=3, start=100)
    for i in range(10):
        (train / "ant" / f"copy{i}.png").write_bytes((train / "ant" / f"{i:03}.png").read_bytes())
    assert sum(sizes(load(tmp_path))) == 39


def test_a_class_may_be_missing_in_test(tmp_path: Path) -> None:
    fill(tmp_path / "pets" / "train")
    fill(tmp_path / "pets" / "test", ("bee",), start=100)
    assert set(load(tmp_path).test.labels.tolist()) == {1}


def shared(root: Path) -> Path:
    """Two images of train are in test, and one of val."""
    fill(root / "pets" / "train")
    fill(root / "pets" / "val", count=3, start=100)
    fill(root / "pets" / "test", count=3, start=200)
    for old, new in (("train/ant/000", "test/ant/x"), ("train/bee/001", "test/bee/y"),
                     ("val/cat/001", "test/ant/z")):  # fmt: skip
        Image.open(root / "pets" / f"{old}.png").save(root / "pets" / f"{new}.bmp")
    return root


def test_copies_in_two_given_splits_are_named_in_pairs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--drop-copies test") as caught:
        load(shared(tmp_path))
    assert "2 of 12 test images are also in train" in str(caught.value)
    assert "test/ant/x.bmp = train/ant/000.png, test/bee/y.bmp" in str(caught.value)
    assert "test/ant/z.bmp = val/cat/001.png" in str(caught.value)


@pytest.mark.parametrize(("losing", "expected"), [("test", [30, 9, 9]), ("train", [28, 8, 12])])
def test_one_side_loses_its_copies_where_the_task_says_so(
    tmp_path: Path, losing: Literal["train", "test"], expected: list[int]
) -> None:
    data = load(shared(tmp_path), choices=Choices(drop_copies=losing))
    assert sizes(data) == expected
    assert "dropped copies: 3" in data.notes
    assert data.source == "pets?dropped_copies=3"


def test_unreadable_images_are_skipped_where_the_task_says_so(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    (root / "ant" / "empty.png").write_bytes(b"")
    chosen = select_images(
        "pets", spec=SPEC, limits=Limits(), seed=0, root=tmp_path,
        choices=Choices(skip_unreadable=True),
    )  # fmt: skip
    assert chosen.source == "pets?skipped_unreadable=1"
    assert chosen.left_out == (
        LeftOut(reason="cannot be decoded", count=1, examples=("ant/empty.png",)),
    )


def test_no_half_decoded_picture_is_kept_with_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = fill(tmp_path / "pets") / "ant" / "000.png"
    whole = path.read_bytes()
    for number in range(5):
        path.with_name(f"{number}.png").write_bytes(whole[: 150 + number])
    alive = list[int]()

    def count(done: int, total: int) -> None:
        if done == total:
            alive.append(sum(issubclass(type(found), ImageFile) for found in gc.get_objects()))

    with pytest.raises(InputError, match="5 images cannot be decoded"):
        load(tmp_path, progress=count)
    assert alive == [0]


def test_more_unreadable_images_than_a_message_lists_are_named_in_a_file(tmp_path: Path) -> None:
    root, report = fill(tmp_path / "pets"), tmp_path / "work" / "unreadable.txt"
    for number in range(25):
        (root / "ant" / f"{number}.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"and 5 more; all are named in .*unreadable\.txt"):
        load(tmp_path, choices=Choices(report=report))
    assert len([line for line in report.read_text().splitlines() if "is empty" in line]) == 25


def test_an_image_in_train_and_test_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "pets" / "train")
    fill(tmp_path / "pets" / "val", start=100)
    fill(tmp_path / "pets" / "test", count=2)
    with pytest.raises(ConfigError, match="6 of 6 test images are also in train"):
        load(tmp_path)


def test_an_image_in_val_and_another_split_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "pets" / "train")
    fill(tmp_path / "pets" / "val", ("bee",), count=2, start=10)
    fill(tmp_path / "pets" / "test", ("ant",), count=1, start=10)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert "1 of 1 test images are also in val" in str(caught.value)
    assert "2 of 2 val images are also in train" in str(caught.value)


def test_every_problem_of_a_split_folder_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "pets" / "train")
    (tmp_path / "pets" / "train" / "dodo").mkdir()
    fill(tmp_path / "pets" / "val", ("bee", "yak"), start=100)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    text = str(caught.value)
    assert "no test/" in text
    assert "val/: classes that train/ lacks: yak" in text
    assert "train/dodo: no image files" in text


# --- what is no folder of images ---------------------------------------------------------------


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pets: no such folder"):
        load(tmp_path)


@pytest.mark.parametrize("classes", [(), ("ant",)], ids=["empty", "one class"])
def test_too_few_classes_are_refused(tmp_path: Path, classes: tuple[str, ...]) -> None:
    (tmp_path / "pets").mkdir()
    fill(tmp_path / "pets", classes)
    with pytest.raises(ConfigError, match=f"{len(classes)} class folders, expected at least 2"):
        load(tmp_path)


def test_a_folder_too_small_for_three_splits_says_so(tmp_path: Path) -> None:
    fill(tmp_path / "pets", ("ant", "bee"), count=1)
    with pytest.raises(ConfigError, match="no images"):
        load(tmp_path)


def test_an_unknown_kind_of_source_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="torchvision://"):
        load(tmp_path, "torchvison://DTD")


# --- published sets ----------------------------------------------------------------------------


class FakeDTD:
    """Stands for torchvision's DTD: 1,200 training images of 3 classes, 90 to test."""

    classes = ("banded", "dotted", "woven")

    def __init__(self, root: Path, *, split: str, download: bool) -> None:
        assert download
        self._first = 0 if split == "train" else 5000
        self._labels = [i % 3 for i in range(1200 if split == "train" else 90)]
        (root / "dtd").mkdir(exist_ok=True)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        noise = np.random.default_rng(self._first + index).integers(0, 256, (4, 4), dtype=np.uint8)
        return Image.fromarray(noise), self._labels[index]


def test_a_published_set_follows_the_vtab_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision.datasets, "DTD", FakeDTD)
    data = load(tmp_path, "torchvision://DTD")
    assert (data.classes, sizes(data)) == (FakeDTD.classes, [800, 200, 90])
    assert (tmp_path / "work" / "downloads" / "DTD" / "dtd").is_dir()


def test_limits_apply_within_the_vtab_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "DTD", FakeDTD)
    data = load(tmp_path, "torchvision://DTD", limits=Limits(train=60, val=30, test=9))
    assert sizes(data) == [60, 30, 9]
    assert torch.bincount(data.train.labels).tolist() == [20, 20, 20]


def test_shared_images_of_a_published_set_are_kept_and_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def same(_: object, index: int) -> tuple[Image.Image, int]:
        return Image.new("L", (4, 4), index % 250), index % 3

    monkeypatch.setattr(FakeDTD, "__getitem__", same)
    monkeypatch.setattr(torchvision.datasets, "DTD", FakeDTD)
    data = load(tmp_path, "torchvision://DTD")
    assert "90 test images are also in train" in data.notes
    assert "198 val images are also in train" in data.notes


class FakeEuroSAT:
    """Stands for a set without splits."""

    classes = ("field", "river")

    def __init__(self, root: Path, *, download: bool) -> None:
        assert root.is_dir()
        assert download
        self.targets = [i % 2 for i in range(400)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        noise = np.random.default_rng(index).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        return Image.fromarray(noise), self.targets[index]


def test_a_set_without_a_test_split_holds_out_the_same_fifth_for_every_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision.datasets, "EuroSAT", FakeEuroSAT)
    first, other = (load(tmp_path, "torchvision://EuroSAT", seed=seed) for seed in (0, 1))
    assert sizes(first) == [256, 64, 80]
    assert torch.equal(first.test.images, other.test.images)
    assert not torch.equal(first.train.images, other.train.images)


@pytest.mark.parametrize("name", published.NAMES)
def test_every_known_set_is_one_of_torchvision(name: str) -> None:
    assert issubclass(getattr(torchvision.datasets, name), torch.utils.data.Dataset)


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("no route to host"),
        RuntimeError("File not found or corrupted."),
        ConnectionResetError("reset"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failed_download_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets, "DTD", broken)
    with pytest.raises(FetchError, match="adapterbank task add dtd --data DIR"):
        load(tmp_path, "torchvision://DTD")


def test_a_damaged_download_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(_: object, index: int) -> tuple[Image.Image, int]:
        raise OSError(f"image file {index} is truncated")

    monkeypatch.setattr(FakeDTD, "__getitem__", damaged)
    monkeypatch.setattr(torchvision.datasets, "DTD", FakeDTD)
    with pytest.raises(FetchError, match=r"1090 images of the download are damaged.*\n.*rm -r"):
        load(tmp_path, "torchvision://DTD")


def test_an_unknown_published_set_lists_its_neighbours(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'CIFAR10"):
        load(tmp_path, "torchvision://CIFAR-10")
