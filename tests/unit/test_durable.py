"""What a kill leaves of a folder that was being replaced, and what reading takes."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from adapterbank.durable import TEMPORARY, locked, read_file, replace_directory, replace_file
from adapterbank.errors import IntegrityError

OLD = {"a": b"old", "b": b"of the old"}
NEW = {"a": b"new", "c": b"of the new"}

# Kills itself before or after the n-th thing it does to the disk, for every n there is.
MORTAL = """
import shutil, sys
from pathlib import Path
from adapterbank.durable import replace_directory
from tests.mortal import survives
from tests.unit.test_durable import NEW, OLD, content, leftovers

target = Path(sys.argv[1])
last, gone = 0, 0
while True:
    shutil.rmtree(target.parent)
    target.parent.mkdir()
    replace_directory(target, OLD)
    if survives(lambda: replace_directory(target, NEW), last):
        break
    if target.exists():
        assert content(target) in (OLD, NEW), last
    else:
        gone += 1
        whole = sorted(map(content, leftovers(target)), key=lambda files: files["a"])
        assert whole == [NEW, OLD], last
    replace_directory(target, NEW)
    assert content(target) == NEW, last
    assert not leftovers(target), last
    last += 1
print(last, gone)
"""


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_are_as_open_as_the_user_s_others(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        replace_file(tmp_path / "file", b"new")
        replace_directory(tmp_path / "folder", NEW)
        with locked(tmp_path / ".lock"):
            pass
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in files} == dict.fromkeys(
        ("file", ".lock", *NEW), mode
    )


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def leftovers(target: Path) -> list[Path]:
    return [path for path in target.parent.iterdir() if path.name.startswith(TEMPORARY)]


def test_a_replacement_killed_anywhere_leaves_old_and_new_whole_and_is_repeated(
    tmp_path: Path,
) -> None:
    target = tmp_path / "bank" / "version"
    target.parent.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", MORTAL, str(target)],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    points, gone = map(int, ran.stdout.split())
    assert points > 20
    assert gone == 2  # after the first rename, and before the second: neither is under its name


def test_a_replacement_that_fails_between_its_renames_keeps_the_old_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "version"
    replace_directory(target, OLD)
    rename = Path.rename

    def refuse(self: Path, to: Path) -> Path:
        if to == target:
            raise OSError("no")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="no"):
        replace_directory(target, NEW)
    monkeypatch.undo()
    assert [content(path) for path in leftovers(target)] == [OLD]
    replace_directory(target, NEW)
    assert content(target) == NEW
    assert not leftovers(target)


def test_a_generous_limit_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"ten bytes!")
    assert read_file(path, limit=1 << 60) == b"ten bytes!"


def linked(tmp_path: Path, place: str, content: bytes) -> Path:
    """Make a symbolic link to a file of this content."""
    md5 = hashlib.md5(b"kept", usedforsecurity=False).hexdigest()
    target = tmp_path / place.format(md5[:2], md5[2:])
    target.parent.mkdir(parents=True)
    target.write_bytes(content)
    link = tmp_path / "link"
    link.symlink_to(target)
    return link


@pytest.mark.parametrize("place", ["shared/files/md5/{}/{}", "of DVC 2/{}/{}"])
def test_a_link_to_an_object_of_a_dvc_cache_is_read_as_what_it_is_named_by(
    tmp_path: Path, place: str
) -> None:
    link = linked(tmp_path, place, b"kept")
    assert read_file(link, limit=9) == b"kept"
    link.resolve().write_bytes(b"lost")
    with pytest.raises(IntegrityError, match="whose content has the MD5"):
        read_file(link, limit=9)
    with pytest.raises(IntegrityError, match="more than the 3 allowed"):
        read_file(link, limit=3)
    link.resolve().unlink()
    with pytest.raises(FileNotFoundError):
        read_file(link, limit=9)


def test_a_link_to_anything_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="is a symbolic link"):
        read_file(linked(tmp_path, "files/md5/{}{}", b"kept"), limit=9)


def test_a_link_to_a_link_is_refused(tmp_path: Path) -> None:
    link = linked(tmp_path, "files/md5/{}/{}", b"kept")
    kept = link.readlink()
    kept.rename(tmp_path / "moved")
    kept.symlink_to(tmp_path / "moved")
    with pytest.raises(IntegrityError, match="is a symbolic link"):
        read_file(link, limit=9)
