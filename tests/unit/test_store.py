"""A stored task comes back bit for bit, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from adapterbank.data.base import SPLITS, Split, TaskData
from adapterbank.data.selection import Rows, Selection
from adapterbank.data.store import load_task, save_selection, stored_digest
from adapterbank.errors import ConfigError, ImageError, InputError, IntegrityError
from adapterbank.records import InputSpec
from tests.task_files import data_digest, save_task

SPEC = InputSpec(size=(4, 6))


def split(count: int, seed: int, classes: int = 3) -> Split:
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 4, 6), dtype=torch.uint8, generator=random)
    return Split(images=images, labels=torch.arange(count) % classes)


def task(**changes: object) -> TaskData:
    parts: dict[str, object] = {
        "classes": ("cat", "dög", "emu"),
        "train": split(9, 0),
        "val": split(3, 1),
        "test": split(5, 2),
        "source": "embedded://animals",
        "notes": "none",
    }
    return TaskData(**(parts | changes))  # type: ignore[arg-type]


def selection_of(data: TaskData, **changes: object) -> Selection:
    """Select all images of a task that is in memory, of which no split may have another's."""
    splits = {name: data.split(name) for name in SPLITS}
    rows = {name: Rows(labels=s.labels, read=s.images.__getitem__) for name, s in splits.items()}
    parts: dict[str, object] = {
        "classes": data.classes,
        "splits": rows,
        "source": data.source,
        "notes": data.notes,
    }
    return Selection(**(parts | changes))  # type: ignore[arg-type]


# --- digest and checks -------------------------------------------------------------------------


@given(part=st.sampled_from(["train", "val", "test"]), data=st.data())
def test_the_digest_changes_with_any_bit_of_any_image(part: str, data: st.DataObject) -> None:
    before = task()
    old = before.split(part)
    images = old.images.clone()
    flat = images.view(-1)
    flat[data.draw(st.integers(0, len(flat) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    after = task(**{part: Split(images=images, labels=old.labels)})
    assert data_digest(after) != data_digest(before)


def test_the_digest_changes_with_labels_and_class_names() -> None:
    labels = task().val.labels.flip(0)
    relabelled = task(val=Split(images=task().val.images, labels=labels))
    renamed = task(classes=("cat", "dog", "emu"))
    assert len({data_digest(data) for data in (task(), relabelled, renamed)}) == 3


def test_the_digest_is_of_the_values_not_of_the_memory_layout() -> None:
    stored = task().train.images.to(memory_format=torch.channels_last)
    other = task(train=Split(images=stored, labels=task().train.labels), source="x", notes="y")
    assert data_digest(other) == data_digest(task())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"classes": ("cat",)}, "expected at least 2"),
        ({"classes": ("cat", "cat", "emu")}, "named more than once: cat"),
        ({"classes": ("cat", "dog", "emu", "fox")}, "train: no image of fox"),
        ({"val": split(0, 1)}, "val: no images"),
        ({"test": split(5, 2, classes=5)}, "test: labels from 0 to 4, expected 0 to 2"),
        ({"test": split(9, 0)}, "9 of 9 test images are also in train"),
        ({"test": split(3, 1)}, "3 of 3 test images are also in val"),
        ({"val": split(9, 0)}, "9 of 9 val images are also in train"),
    ],
    ids=[
        "one class",
        "repeated",
        "untrained",
        "empty",
        "range",
        "in train and test",
        "in val and test",
        "in train and val",
    ],
)
def test_the_check_names_what_is_wrong(
    tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        save_selection(selection_of(task(**changes)), tmp_path / "data", SPEC)


def test_the_check_names_all_problems_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        selection_of(task(classes=("cat", "cat", "emu", "fox"), val=split(0, 1))).check()
    assert len(caught.value.problems) == 3


def test_shared_images_are_counted_and_can_be_allowed(tmp_path: Path) -> None:
    train, val, test = split(9, 0), split(3, 1), split(5, 2)
    images = torch.cat([test.images, train.images[:2], val.images[:1]])
    shared = task(test=Split(images=images, labels=torch.arange(8) % 3))
    save_selection(selection_of(shared, may_share=True), tmp_path, SPEC)
    assert load_task(tmp_path).notes == (
        "none; 2 test images are also in train; 1 test images are also in val"
    )


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 3, 4, 6), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 3, 4, 6).byte(), torch.zeros(2)),
        (torch.zeros(2, 3, 4, 6).byte(), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 4, 6).byte(), torch.zeros(3, dtype=torch.int64)),
    ],
    ids=["float images", "float labels", "lengths", "no batch"],
)
def test_a_split_refuses_other_tensors(images: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(InputError):
        Split(images=images, labels=labels)


# --- round trip --------------------------------------------------------------------------------


def test_a_task_comes_back_bit_for_bit(tmp_path: Path) -> None:
    digest = save_task(task(), tmp_path / "new" / "data", SPEC)
    found = load_task(tmp_path / "new" / "data", spec=SPEC)
    assert data_digest(found) == digest == data_digest(task())
    assert (found.classes, found.source, found.notes) == (
        task().classes,
        task().source,
        task().notes,
    )


def test_equal_data_makes_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_task(task(), tmp_path / name, SPEC)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["task.json", "test.safetensors", "train.safetensors", "val.safetensors"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("count", [1, 5, 1000])
def test_files_are_those_that_safetensors_would_write(tmp_path: Path, count: int) -> None:
    data = task(val=split(count, 1))
    save_task(data, tmp_path, SPEC)
    tensors = {"images": data.val.images, "labels": data.val.labels}
    assert (tmp_path / "val.safetensors").read_bytes() == save(tensors)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_prepared_files_are_as_open_as_the_user_s_others(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        save_task(task(), tmp_path / "data", SPEC)
    finally:
        os.umask(before)
    files = [tmp_path / "data" / f"{name}.safetensors" for name in SPLITS]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [mode] * 3


MANY = task(train=split(200, 0))  # more than are decoded together


def test_images_are_stored_as_they_were_selected(tmp_path: Path) -> None:
    digest = save_selection(selection_of(MANY), tmp_path, SPEC)
    assert digest == data_digest(MANY)
    assert data_digest(load_task(tmp_path, spec=SPEC)) == digest == stored_digest(tmp_path)


def test_progress_counts_every_image_of_all_splits(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    save_selection(
        selection_of(MANY), tmp_path, SPEC, lambda done, total: told.append((done, total))
    )
    assert told == [(number, 208) for number in range(1, 209)]


def broken(rows: Rows, bad: set[int]) -> Rows:
    """Have some rows fail to decode."""

    def read(row: int) -> torch.Tensor:
        if row in bad:
            raise ImageError(f"{row}.png", "is empty (0 bytes)")
        return rows.read(row)

    return Rows(labels=rows.labels, read=read)


def test_images_that_cannot_be_decoded_are_named_together_and_nothing_is_stored(
    tmp_path: Path,
) -> None:
    save_task(task(), tmp_path, SPEC)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    splits = dict(selection_of(MANY).splits)
    splits |= {"train": broken(splits["train"], {3, 150}), "test": broken(splits["test"], {0})}
    with pytest.raises(InputError, match="3 images cannot be decoded") as caught:
        save_selection(selection_of(MANY, splits=splits), tmp_path, SPEC)
    assert re.findall(r"\d+\.png", caught.value.message) == ["3.png", "150.png", "0.png"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_images_in_two_splits_are_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    copies = task(val=Split(images=task().train.images[:2], labels=torch.tensor([0, 1])))
    with pytest.raises(ConfigError, match="2 of 2 val images are also in train"):
        save_selection(selection_of(copies), tmp_path, SPEC)
    assert list(tmp_path.iterdir()) == []


def test_wrong_labels_are_refused_before_an_image_is_decoded(tmp_path: Path) -> None:
    def read(row: int) -> torch.Tensor:
        raise AssertionError(row)

    rows = Rows(labels=torch.tensor([0, 1, 7]), read=read)
    with pytest.raises(ConfigError, match="labels from 0 to 7"):
        save_selection(
            selection_of(MANY, splits=dict.fromkeys(SPLITS, rows)), tmp_path / "new", SPEC
        )
    assert not (tmp_path / "new").exists()


MEMORY = """
import json, resource, sys
from pathlib import Path
from PIL import Image
from adapterbank.config.bank import Limits
from adapterbank.data.sources import select_images
from adapterbank.data.store import load_task, save_selection
from adapterbank.records import InputSpec

root, spec = Path(sys.argv[1]), InputSpec(size=(96, 96))
for number in range(3000):
    path = root / "pets" / ("ant", "bee")[number % 2] / f"{number:04}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (number % 256, number // 256, 9)).save(path)

def prepare(limit):
    limits = Limits(train=limit, val=limit, test=limit)
    chosen = select_images("pets", spec=spec, limits=limits, seed=0, root=root)
    save_selection(chosen, root / "data", spec)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

few, all_of_them = prepare(100), prepare(None)
size = sum(path.stat().st_size for path in (root / "data").iterdir()) / 2**20
print(json.dumps({"few": few, "all": all_of_them, "size": size}))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    mib = json.loads(ran.stdout)
    assert mib["size"] > 75
    assert mib["all"] - mib["few"] < 15, mib


def test_saving_again_replaces_a_task_that_is_in_use(tmp_path: Path) -> None:
    save_task(task(), tmp_path, SPEC)
    first = load_task(tmp_path)
    save_task(task(train=split(6, 7)), tmp_path, SPEC)
    assert data_digest(first) == data_digest(task())
    assert len(load_task(tmp_path).train) == 6


def test_bad_data_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        save_task(task(classes=("cat",)), tmp_path / "data", SPEC)
    assert not (tmp_path / "data").exists()


def test_a_folder_without_a_task_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dvc repro"):
        load_task(tmp_path)


def test_an_interrupted_save_is_not_taken_for_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_task(task(), tmp_path, SPEC)
    replace, moved = Path.replace, []

    def die_at_the_second(self: Path, target: Path) -> Path:
        moved.append(target)
        if len(moved) == 2:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        save_task(task(train=split(6, 7)), tmp_path, SPEC)
    with pytest.raises(InputError, match="no prepared task"):
        load_task(tmp_path)


def test_pixels_for_another_input_are_refused(tmp_path: Path) -> None:
    save_task(task(), tmp_path, SPEC)
    with pytest.raises(InputError, match="prepared for the input"):
        load_task(tmp_path, spec=InputSpec(size=(6, 4)))


@pytest.mark.parametrize("name", ["train.safetensors", "test.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "cut", "noise", "one bit"])
def test_a_damaged_file_is_named_with_what_mends_it(tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "work" / "pets" / "data"
    save_task(task(), folder, SPEC)
    load_task(folder)  # what was hashed once is hashed again once it has changed
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        flipped = bytes([data[-9] ^ 16])
        changed = {"cut": data[:-7], "noise": b"\xff" * len(data)}
        path.write_bytes(changed.get(damage, data[:-9] + flipped + data[-8:]))
    with pytest.raises(IntegrityError, match=rf"{name}(.|\n)*dvc repro -f prepare@pets"):
        load_task(folder)


@settings(max_examples=30, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_flipped_bit_of_an_index_passes(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    save_task(task(), folder, SPEC)
    path, before = folder / "task.json", load_task(folder)
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(bytes(data))
    with contextlib.suppress(IntegrityError):
        after = load_task(folder)  # white space between two values
        assert json.loads(data) == json.loads((folder / "task.json").read_text())
        assert (after.classes, after.source) == (before.classes, before.source)


def test_each_file_is_hashed_once_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_task(task(), tmp_path, SPEC)
    load_task(tmp_path)
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert load_task(tmp_path).classes == task().classes


def as_written_earlier(folder: Path) -> None:
    """Leave out of an index what the first schema had not."""
    path = folder / "task.json"
    content = {k: v for k, v in json.loads(path.read_text()).items() if k not in {"files", "check"}}
    path.write_text(json.dumps(content | {"schema_version": 1}))


def test_a_task_that_an_earlier_program_prepared_is_loaded_and_checked(tmp_path: Path) -> None:
    save_task(task(), tmp_path, SPEC)
    as_written_earlier(tmp_path)
    assert data_digest(load_task(tmp_path, spec=SPEC)) == stored_digest(tmp_path)
    path = tmp_path / "val.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(IntegrityError, match=r"train, val or test\.safetensors is damaged"):
        load_task(tmp_path)


def test_images_that_change_between_choosing_and_storing_are_refused(tmp_path: Path) -> None:
    whole = selection_of(MANY)
    splits = {name: replace(rows, digests=[b""] * len(rows.labels))
              for name, rows in whole.splits.items()}  # fmt: skip
    with pytest.raises(InputError, match="changed while they were prepared"):
        save_selection(replace(whole, splits=splits), tmp_path, SPEC)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema_version", 3, "schema_version"),
        ("classes", "cat", "classes"),
        ("extra", 1, "extra"),
        ("counts", {"train": 9, "val": 3, "test": 6}, "'test': 5"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(
    tmp_path: Path, key: str, value: object, message: str
) -> None:
    save_task(task(), tmp_path, SPEC)
    as_written_earlier(tmp_path)
    path = tmp_path / "task.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(IntegrityError, match=message):
        load_task(tmp_path)
