"""Names of images on the command line and on standard input."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from adapterbank.cli.inputs import collect
from adapterbank.errors import ImageError, InputError


def test_a_line_that_is_not_utf_8_is_an_error_in_its_place() -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"one.png\ncaf\xe9.png\ntwo.png\n"), encoding="utf-8")
    first, second, third = collect(["-"], stdin)
    assert (first, third) == (Path("one.png"), Path("two.png"))
    assert isinstance(second, ImageError)
    assert str(second) == r"caf\udce9.png: this name is not UTF-8"


def test_a_file_whose_name_is_not_utf_8_is_an_error_in_its_place(tmp_path: Path) -> None:
    for name in (b"caf\xe9.png", b"tea.png"):
        Path(tmp_path, os.fsdecode(name)).write_bytes(b"?")
    found = collect([str(tmp_path)], io.StringIO())
    assert sorted(type(one).__name__ for one in found) == ["ImageError", "PosixPath"]
    (error,) = [one for one in found if isinstance(one, ImageError)]
    assert error.message.endswith(r"caf\udce9.png: this name is not UTF-8")


def test_what_a_folder_has_besides_images_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.heic", "c.txt", ".d.png"):
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / "e.png").symlink_to("nowhere")
    assert collect([str(tmp_path)], io.StringIO()) == [tmp_path / "a.png", tmp_path / "e.png"]
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "Left out: 1 file: HEIC, which cannot be decoded: convert them to JPEG or PNG (b.heic)",
        "Left out: 1 file: hidden (.d.png)",
        "Left out: 1 file: with the ending .txt, which is no image's (c.txt)",
    ]


@pytest.mark.parametrize("name", ["gone.png", "gone/away"])
def test_paths_of_which_none_exists_are_taken_or_refused(name: str) -> None:
    assert collect([name], io.StringIO()) == [Path(name)]
    with pytest.raises(InputError, match=f"{name}: no such file or folder"):
        collect([name], io.StringIO(), missing=False)
