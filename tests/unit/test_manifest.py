"""A manifest names every byte of a version; anything else in the folder is refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from adapterbank.errors import IntegrityError, NotPulled
from adapterbank.registry.manifest import (
    FILE_LIMITS,
    MANIFEST,
    build_manifest,
    check_files,
    check_payload,
    parse_manifest,
    version_digest,
)
from tests.registry_samples import files_of


def _folder(parent: Path, files: dict[str, bytes]) -> tuple[Path, str]:
    manifest = build_manifest(files)
    digest = version_digest(manifest)
    folder = parent / "dtd" / digest
    folder.mkdir(parents=True)
    for name, data in {**files, MANIFEST: manifest}.items():
        (folder / name).write_bytes(data)
    return folder, digest


def test_a_manifest_is_the_same_whatever_the_order_of_files() -> None:
    files = files_of("dtd")
    assert build_manifest(files) == build_manifest(dict(reversed(files.items())))


def test_a_manifest_is_json_with_one_file_a_line() -> None:
    files = files_of("dtd")
    manifest = build_manifest(files)
    document = json.loads(manifest)
    assert document["schema"] == 1
    assert list(document["files"]) == sorted(files)
    assert document["files"]["README.md"] == {
        "sha256": hashlib.sha256(files["README.md"]).hexdigest(),
        "md5": hashlib.md5(files["README.md"], usedforsecurity=False).hexdigest(),
        "size": len(files["README.md"]),
    }
    assert manifest.endswith(b"\n")
    assert len(manifest.splitlines()) == len(files) + 5
    assert version_digest(manifest) == hashlib.sha256(manifest).hexdigest()


def test_files_that_are_whole_come_back_with_their_manifest(tmp_path: Path) -> None:
    files = files_of("dtd")
    folder, digest = _folder(tmp_path, files)
    read = check_files(folder, digest)
    assert read == {**files, MANIFEST: build_manifest(files)}


@pytest.mark.parametrize("name", [*files_of("dtd"), MANIFEST])
def test_one_flipped_bit_anywhere_names_the_file(tmp_path: Path, name: str) -> None:
    folder, digest = _folder(tmp_path, files_of("dtd"))
    sound = (folder / name).read_bytes()
    for position in {0, len(sound) // 2, len(sound) - 1}:
        flipped = bytearray(sound)
        flipped[position] ^= 1
        (folder / name).write_bytes(bytes(flipped))
        with pytest.raises(IntegrityError, match=name) as caught:
            check_files(folder, digest)
        assert caught.value.exit_code == 4
        assert caught.value.fix is not None
        assert caught.value.fix.startswith("adapterbank pull ")


def test_a_truncated_file_is_refused_with_both_sizes(tmp_path: Path) -> None:
    folder, digest = _folder(tmp_path, files_of("dtd"))
    (folder / "README.md").write_bytes(b"#")
    with pytest.raises(IntegrityError, match=r"README\.md has 1 bytes, expected 9"):
        check_files(folder, digest)


@pytest.mark.parametrize("name", ["extra.txt", "adapter_model.bin", "..data", "canary.safetensors"])
def test_an_extra_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    folder, digest = _folder(tmp_path, files_of("dtd"))
    (folder / name).write_bytes(b"")
    with pytest.raises(IntegrityError, match=name):
        check_files(folder, digest)


@pytest.mark.parametrize("name", ["metrics.json", MANIFEST])
def test_a_missing_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    folder, digest = _folder(tmp_path, files_of("dtd"))
    (folder / name).unlink()
    with pytest.raises(IntegrityError, match=name):
        check_files(folder, digest)


def test_a_symbolic_link_is_refused_even_to_the_same_bytes(tmp_path: Path) -> None:
    folder, digest = _folder(tmp_path, files_of("dtd"))
    (folder / "README.md").rename(tmp_path / "elsewhere")
    (folder / "README.md").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match=r"README\.md is a symbolic link"):
        check_files(folder, digest)


@pytest.mark.parametrize("level", ["task", "version"])
def test_a_folder_that_is_a_symbolic_link_is_refused(tmp_path: Path, level: str) -> None:
    folder, digest = _folder(tmp_path / "outside", files_of("dtd"))
    link = tmp_path / "inside" / "dtd"
    if level == "task":
        link.parent.mkdir()
        link.symlink_to(folder.parent)
    else:
        link.mkdir(parents=True)
        (link / digest).symlink_to(folder)
    with pytest.raises(IntegrityError, match="is a symbolic link"):
        check_files(link / digest, digest)


def test_a_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    folder, digest = _folder(tmp_path, files_of("dtd"))
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")
    with pytest.raises(IntegrityError, match="not a regular file"):
        check_files(folder, digest)


def test_a_file_over_its_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    folder, digest = _folder(tmp_path, files_of("dtd"))
    with (folder / "README.md").open("r+b") as stream:
        stream.truncate(FILE_LIMITS["README.md"] + 1)  # sparse: takes no room
    with pytest.raises(IntegrityError, match="more than the"):
        check_files(folder, digest)


def test_a_folder_that_is_not_there_was_not_pulled_yet(tmp_path: Path) -> None:
    with pytest.raises(NotPulled, match="not pulled yet") as caught:
        check_files(tmp_path / "dtd" / ("0" * 64), "0" * 64)
    assert caught.value.fix == f"adapterbank pull dtd@sha256:{'0' * 12}"
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_no_manifest_is_built_without_the_required_files(missing: str) -> None:
    files = files_of("dtd")
    del files[missing]
    with pytest.raises(IntegrityError, match=missing):
        build_manifest(files)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "weights.pkl", ""])
def test_no_manifest_is_built_with_a_name_off_the_list(name: str) -> None:
    with pytest.raises(IntegrityError, match="no version may have"):
        build_manifest({**files_of("dtd"), name: b""})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"not json", "not JSON"),
        (b"[]", "not valid"),
        (b'{"schema": 2, "files": {}}', "has schema 2"),
        (b'{"schema": 1, "files": {}, "more": 1}', "more"),
        (b'{"schema": 1, "files": {"../x": {"sha256": "", "md5": "", "size": -1}}}', "size"),
        (b" " * 70_000, "never has so many"),
    ],
    ids=["text", "list", "schema", "key", "fields", "size"],
)
def test_a_manifest_of_another_shape_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(IntegrityError, match=reason):
        parse_manifest(text)


def test_bytes_from_elsewhere_are_checked_the_same_way() -> None:
    files = files_of("dtd")
    del files["canary.safetensors"]
    manifest = build_manifest(files)
    digest = version_digest(manifest)
    check_payload({**files, MANIFEST: manifest}, digest, where="cache")
    with pytest.raises(IntegrityError, match=r"cache/README\.md has SHA-256"):
        check_payload(
            {**files, MANIFEST: manifest, "README.md": b"# B card\n"}, digest, where="cache"
        )
    with pytest.raises(IntegrityError, match=r"cache lacks manifest\.json"):
        check_payload(files, digest, where="cache")
    with pytest.raises(IntegrityError, match=r"cache/canary\.safetensors is not in the manifest"):
        check_payload(
            {**files, MANIFEST: manifest, "canary.safetensors": b""}, digest, where="cache"
        )
