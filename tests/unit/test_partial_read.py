"""Reading some files of a version, for lists: what is read is checked, what is missing is seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adapterbank.errors import IntegrityError, NotPulled
from adapterbank.registry.manifest import check_some
from adapterbank.registry.versions import Version
from tests.registry_samples import files_of, new_registry

NAMES = ("adapter_config.json", "metrics.json")


@pytest.fixture
def version(tmp_path: Path) -> Version:
    """Return a registered version."""
    return new_registry(tmp_path / "registry").register("dtd", files_of("dtd"))


def test_the_files_and_the_sizes_of_all_are_given(version: Version) -> None:
    files, sizes = check_some(version.path, version.digest, (*NAMES, "nothing.json"))
    assert files == {name: files_of("dtd")[name] for name in NAMES}  # it has no other
    assert sizes == {path.name: path.stat().st_size for path in version.path.iterdir()}


@pytest.mark.parametrize("name", [*NAMES, "manifest.json"])
def test_a_changed_byte_of_what_is_read_is_noticed(version: Version, name: str) -> None:
    path = version.path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=name) as caught:
        check_some(version.path, version.digest, NAMES)
    assert (caught.value.fix or "").startswith("adapterbank pull")


@pytest.mark.parametrize("name", [*NAMES, "manifest.json", "adapter_model.safetensors"])
def test_a_missing_or_a_longer_file_is_noticed(version: Version, name: str) -> None:
    path = version.path / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(IntegrityError, match=name):
        check_some(version.path, version.digest, NAMES)
    path.unlink()
    with pytest.raises(IntegrityError, match=name):
        check_some(version.path, version.digest, NAMES)


def test_an_extra_file_and_links_are_noticed(version: Version, tmp_path: Path) -> None:
    (version.path / "extra").write_bytes(b"")
    with pytest.raises(IntegrityError, match="extra"):
        check_some(version.path, version.digest, NAMES)
    (version.path / "extra").unlink()
    config = version.path / NAMES[0]
    shutil.copy(config, tmp_path / "config")
    config.unlink()
    config.symlink_to(tmp_path / "config")
    with pytest.raises(IntegrityError, match=NAMES[0]):
        check_some(version.path, version.digest, NAMES)


def test_another_version_in_its_place_and_a_linked_folder_are_noticed(version: Version) -> None:
    with pytest.raises(IntegrityError, match="expected"):
        check_some(version.path, "ab" * 32, NAMES)
    moved = version.path.with_name("moved")
    version.path.rename(moved)
    with pytest.raises(NotPulled, match="is not here"):
        check_some(version.path, version.digest, NAMES)
    version.path.symlink_to(moved)
    with pytest.raises(IntegrityError, match="symbolic link"):
        check_some(version.path, version.digest, NAMES)
