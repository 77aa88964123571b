"""A scan takes what it can, counts what it leaves out, and refuses what could mean two things."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterbank.data.left_out import LeftOut, sentences
from adapterbank.data.scan import scan
from adapterbank.errors import ConfigError, InputError, UnknownName


def put(root: Path, *names: str) -> Path:
    """Make files that only look like images: a scan decodes none."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"?")
    return root


def flat(root: Path) -> Path:
    return put(root, "cat/1.png", "cat/2.JPG", "dog/1.png", "dog/deep/er/2.jfif")


def found(root: Path) -> list[LeftOut]:
    return list(scan(root).left_out)


# --- splits ------------------------------------------------------------------------------------

SPELLINGS = [
    ("train", "val", "test"), ("Train", "Val", "Test"), ("TRAIN", "VALID", "TEST"),
    ("Training", "Validation", "Testing"), ("trn", "dev", "tst"), ("train800", "val200", "test"),
    ("seg_train", "seg_val", "seg_test"), ("train_set", "dev-set", "TestSet"),
    ("01_train", "02_development", "03_test"), ("train2017", "val2017", "test2017"),
    ("train", "validate", "test"),
    ("images_train", "train data 2".replace("train", "valid"), "test images"),
]  # fmt: skip


@pytest.mark.parametrize("names", SPELLINGS, ids=lambda names: names[0])
def test_splits_are_known_in_any_case_and_common_spelling(
    tmp_path: Path, names: tuple[str, str, str]
) -> None:
    put(tmp_path, *(f"{name}/{kind}/1.png" for name in names for kind in ("cat", "dog")))
    result = scan(tmp_path)
    assert result.classes == ("cat", "dog")
    assert {split: pool[0].name for split, pool in result.pools.items()} == {
        split: f"{name}/cat/1.png"
        for split, name in zip(("train", "val", "test"), names, strict=True)
    }
    assert result.left_out == ()


@pytest.mark.parametrize("name", ["train", "Test", "dev", "train_station", "test-tube", "retrain"])
def test_a_class_may_be_called_like_a_split_where_it_holds_images(
    tmp_path: Path, name: str
) -> None:
    put(tmp_path, f"{name}/1.png", "bus/1.png")
    assert scan(tmp_path).classes == tuple(sorted((name, "bus")))


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["train/a/1.png", "train/b/1.png", "valid/a/1.png"], "but no test/"),
        (["test/a/1.png", "val/b/1.png"], "but no train/"),
        (["train/a/1.png", "train/b/1.png", "test/1.png"], "test/: no class folders"),
        (["train/1.png", "test/1.png"], "test, train: no class folders below"),
        (
            ["train/a/1.png", "train/b/1.png", "Training/a/1.png", "test/a/1.png"],
            "Training/ and train/ both mean train: keep one",
        ),
        (["cats_train/a/1.png", "cats_test/a/1.png"], "cats_train/: is it a split?"),
        (["train/a/1.png", "train/b/1.png", "test/a/1.png", "eval/a/1.png"], "eval/: is it a"),
        (["train_val/a/1.png", "test/a/1.png"], "train_val/: is it a split?"),
        (["cat/train/1.png", "cat/test/2.png", "dog/train/1.png"], "cat/test/: a split below cat/"),
        (["pets/train/a/1.png", "pets/test/a/1.png"], "pets/test/: a split below pets/"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_could_mean_two_things_is_refused_with_a_sentence(
    tmp_path: Path, files: list[str], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        scan(put(tmp_path, *files))
    assert sentence.lower() in str(caught.value).lower()


# --- what is left out --------------------------------------------------------------------------

SPOILS: dict[str, tuple[Callable[[Path], object], str, int]] = {
    "heic": (lambda root: put(root, "cat/a.HEIC", "cat/b.heif"), "HEIC, which cannot", 2),
    "text": (lambda root: put(root, "cat/a.txt"), "with the ending .txt, which is no", 1),
    "bare": (lambda root: put(root, "cat/a"), "without an ending", 1),
    "loose": (lambda root: put(root, "a.png", "b.csv"), "loose, in no class folder", 2),
    "hidden file": (lambda root: put(root, "cat/.a.png", "dog/._b.png"), "hidden", 2),
    "hidden folder": (lambda root: put(root, "cat/.thumbs/a.png", "cat/.thumbs/b/c.png"),
                      "hidden", 2),
    "hidden class": (lambda root: put(root, ".cache/a.png", "__MACOSX/cat/b.png"), "hidden", 2),
    "checkpoints": (lambda root: put(root, "dog/.ipynb_checkpoints/a-checkpoint.png"), "hidden", 1),
    "dangling": (lambda root: (root / "cat" / "a.png").symlink_to("nowhere"),
                 "links to what is not there", 1),
    "link": (lambda root: (root / "cat" / "more").symlink_to(root / "dog"),
             "links to folders, which are not followed", 1),
    "pipe": (lambda root: os.mkfifo(root / "cat" / "a.png"), "neither a file nor a folder", 1),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILS)
def test_what_is_left_out_is_counted_by_reason(tmp_path: Path, kind: str) -> None:
    spoil, reason, number = SPOILS[kind]
    spoil(flat(tmp_path))
    (one,) = found(tmp_path)
    assert one.reason.startswith(reason)
    assert (one.count, scan(tmp_path).classes) == (number, ("cat", "dog"))
    assert [file.name for file in scan(tmp_path).pools["train"]] == [
        "cat/1.png", "cat/2.JPG", "dog/1.png", "dog/deep/er/2.jfif",
    ]  # fmt: skip


def test_what_may_not_be_read_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, _mode: path.name != "2.JPG")
    assert found(tmp_path) == [
        LeftOut(reason="files that may not be read", count=1, examples=("cat/2.JPG",))
    ]


def test_a_folder_that_may_not_be_read_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat(tmp_path)
    listed = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [(one.reason, one.examples) for one in found(tmp_path)] == [
        ("in a folder that may not be read", ("dog/deep/",))
    ]


def test_a_folder_that_may_be_listed_and_not_entered_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (put(flat(tmp_path), "owl/1.png", "owl/deep/1.png") / "owl" / "more").symlink_to(tmp_path)
    for name in ("stat", "lstat"):
        asked = getattr(os, name)

        def refuse(path: Path, *, asked: Callable[..., object] = asked, **options: bool) -> object:
            if "owl/" in str(path):
                raise PermissionError(13, "Permission denied", path)
            return asked(path, **options)

        monkeypatch.setattr(os, name, refuse)
    with pytest.raises(ConfigError, match=r"owl: no image files(?s:.)*may not be read \(owl/1.png"):
        scan(tmp_path)


def test_a_long_name_of_a_folder_is_told_from_a_split_at_once(tmp_path: Path) -> None:
    name = "dataset" * 36  # were "dataset" to be read in two ways, it would be in 2^36 ways
    put(flat(tmp_path), f"{name}/1.png")
    assert scan(tmp_path).classes == ("cat", name, "dog")


def test_a_folder_beside_the_splits_is_counted(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png", "unlabelled/1.png", "x.csv")
    assert [(one.reason, one.count) for one in found(tmp_path)] == [
        ("in a folder beside the splits", 1), ("loose, in no class folder", 1),
    ]  # fmt: skip


def test_a_hidden_folder_without_files_is_not_worth_a_word(tmp_path: Path) -> None:
    (flat(tmp_path) / ".cache").mkdir()
    assert found(tmp_path) == []


def test_a_class_folder_that_is_a_link_is_a_class(tmp_path: Path) -> None:
    flat(tmp_path / "store")
    put(tmp_path / "pets", "emu/1.png")
    (tmp_path / "pets" / "cat").symlink_to(tmp_path / "store" / "cat")
    assert len(scan(tmp_path / "pets").pools["train"]) == 3


def test_an_empty_class_says_what_is_in_it_and_what_mends_it(tmp_path: Path) -> None:
    put(flat(tmp_path), "emu/1.heic")
    with pytest.raises(ConfigError, match="emu: no image files") as caught:
        scan(tmp_path)
    assert "1 file: HEIC, which cannot be decoded: convert them to JPEG or PNG" in str(caught.value)
    assert "delete the empty class folders" in str(caught.value.fix)


def test_reasons_are_said_largest_first_and_not_without_end() -> None:
    many = [LeftOut(reason=f"r{i}", count=i + 1, examples=("a",)) for i in range(10)]
    lines = sentences(many)
    assert lines[0] == "Left out: 10 files: r9 (a, …)"
    assert lines[-1] == "Left out for 2 other reasons"
    assert len(lines) == 9


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"caf\xe9/1.png", b"cat/caf\xe9.png", b"cat/caf\xe9/1.png"])
def test_a_name_that_is_not_utf_8_is_refused_and_shown_escaped(tmp_path: Path, name: bytes) -> None:
    put(flat(tmp_path), os.fsdecode(name))
    with pytest.raises(InputError, match=r"caf\\udce9[./\w]*: this name is not UTF-8"):
        scan(tmp_path)


@pytest.mark.parametrize("exists", [False, True])
def test_what_is_no_folder_is_refused(tmp_path: Path, *, exists: bool) -> None:
    if exists:
        put(tmp_path, "pets")
    with pytest.raises(InputError, match=r"pets: (not a|no such) folder, expected one with"):
        scan(tmp_path / "pets")


def test_only_the_classes_asked_for_are_read_in_their_order(tmp_path: Path) -> None:
    put(flat(tmp_path), "emu/1.heic")
    result = scan(tmp_path, ("dog", "cat"))
    assert (result.classes, result.left_out) == (("dog", "cat"), ())
    assert [file.label for file in result.pools["train"]] == [0, 0, 1, 1]
    with pytest.raises(UnknownName, match=r"Unknown class of .* Did you mean 'dog'"):
        scan(tmp_path, ("dogg", "cat"))
