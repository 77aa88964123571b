"""Whatever is done to one version, it is refused by name and everything else answers the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import EllipsisType

import pytest

from adapterbank.errors import BackboneMismatch, IntegrityError
from adapterbank.inference.predictor import Predictor
from adapterbank.registry.manifest import MANIFEST
from adapterbank.registry.store import Registry
from adapterbank.text import visible
from tests.damage import FILES, PICTURE, Answer, answers, new_bank
from tests.served import write_weights

Damage = Callable[[Registry, Path], str]
"""Damages the version in a folder; returns what the error must say."""


def edit(old: bytes, new: bytes) -> Damage:
    """Edit the configuration."""

    def damage(registry: Registry, folder: Path) -> str:
        del registry
        path = folder / "adapter_config.json"
        sound = path.read_bytes()
        assert old in sound
        path.write_bytes(sound.replace(old, new, 1))
        return str(path)

    return damage


def swap(name: str, other: str) -> Damage:
    """Exchange one file with that of another version."""

    def damage(registry: Registry, folder: Path) -> str:
        shutil.copy(registry.resolve(other).path / name, folder / name)
        return str(folder / name)

    return damage


def swap_all(other: str) -> Damage:
    """Put another version's whole folder in the place of this one."""

    def damage(registry: Registry, folder: Path) -> str:
        shutil.rmtree(folder)
        shutil.copytree(registry.resolve(other).path, folder)
        return str(folder / "manifest.json")

    return damage


def delete(name: str) -> Damage:
    def damage(registry: Registry, folder: Path) -> str:
        del registry
        (folder / name).unlink()
        return str(folder / name)

    return damage


def delete_manifest(registry: Registry, folder: Path) -> str:
    return f"{folder} lacks {delete(MANIFEST)(registry, folder).rpartition('/')[2]}"


def add(name: str) -> Damage:
    def damage(registry: Registry, folder: Path) -> str:
        del registry
        (folder / name).write_bytes(b"{}")
        return str(folder / name)

    return damage


def link(place: str) -> Damage:
    """Move a file or a folder out of the registry and leave a link to it."""

    def damage(registry: Registry, folder: Path) -> str:
        path = folder if place == "." else folder / place
        outside = registry.root.parent / "outside"
        path.rename(outside)
        path.symlink_to(outside)
        return f"{path} is a symbolic link"

    return damage


def become_a_folder(registry: Registry, folder: Path) -> str:
    del registry
    (folder / "metrics.json").unlink()
    (folder / "metrics.json").mkdir()
    return str(folder / "metrics.json")


def become_a_pipe(registry: Registry, folder: Path) -> str:
    del registry
    (folder / "metrics.json").unlink()
    os.mkfifo(folder / "metrics.json")
    return f"{folder / 'metrics.json'} is not a regular file"


def vanish(registry: Registry, folder: Path) -> str:
    del registry
    shutil.rmtree(folder)
    return str(folder)


def grow(registry: Registry, folder: Path) -> str:
    del registry
    with (folder / "adapter_model.safetensors").open("r+b") as stream:
        stream.truncate(1 << 40)  # a sparse terabyte
    return "adapter_model.safetensors has 1,099,511,627,776 bytes"


def loop(registry: Registry, folder: Path) -> str:
    del registry
    shutil.rmtree(folder)
    folder.symlink_to(folder)
    return f"{folder} is a symbolic link"


# Two versions of one task that differ in their weights alone.
EQUAL = (
    "README.md",
    "adapter_config.json",
    "metrics.json",
    "routing.safetensors",
    "seen_images.bin",
)
DAMAGES: dict[str, Damage] = {
    **{f"delete-{name}": delete(name) for name in FILES if name != MANIFEST},
    "delete-manifest": delete_manifest,
    **{f"link-{name}": link(name) for name in (*FILES, ".")},
    **{f"swap-{name}": swap(name, "bugs@2") for name in FILES if name not in EQUAL},
    **{f"swap-task-{name}": swap(name, "colours@1") for name in FILES if name != "metrics.json"},
    "swap-folder": swap_all("bugs@2"),
    "swap-folder-task": swap_all("colours@1"),
    "edit-class": edit(b'"ant"', b'"bat"'),
    "edit-classes": edit(b'"ant"', b'"bee"'),
    "edit-hyper": edit(b'"prompts": ', b'"prompts": 1'),
    "edit-fingerprint": edit(b'"fingerprint": "', b'"fingerprint": "0'),
    "edit-space": edit(b"{", b"{ "),
    "add-file": add("pickle.pkl"),
    "add-hidden": add(".DS_Store"),
    "add-lookalike": add("adapter_config.\u0458son"),  # a Cyrillic letter
    "add-newline": add("README.md\n"),
    "folder": become_a_folder,
    "pipe": become_a_pipe,
    "vanish": vanish,
    "grow": grow,
    "loop": loop,
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Answer]]:
    """Return a bank nobody changes, and its answers."""
    registry = new_bank(tmp_path_factory.mktemp("sound") / "registry")
    return registry.root, answers(registry)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_version_is_refused_by_name_and_all_others_answer_the_same(
    sound: tuple[Path, dict[str, Answer]], tmp_path: Path, damage: Damage
) -> None:
    shutil.copytree(sound[0], tmp_path / "registry")
    registry = Registry.open(tmp_path / "registry")
    said = damage(registry, registry.resolve("bugs").path)
    running = Predictor(registry)
    with pytest.raises(IntegrityError) as caught:
        running.predict([PICTURE], task="bugs")
    assert visible(said) in caught.value.message
    assert caught.value.exit_code == 4
    assert caught.value.fix
    for ref, (digest, top_k) in sound[1].items():  # of the predictor that was refused, too
        (found,) = running.predict([PICTURE], task=ref)
        assert (found.digest, found.top_k) == (digest, top_k)
    assert answers(registry) == sound[1]
    assert {p.task for p in registry.verify() if p.kind in {"damaged", "absent"}} == {"bugs"}
    assert registry.verify("colours") == ()


@pytest.mark.parametrize("content", [b"", b"{}", b"<<<<<<< HEAD\n", None, ...], ids=repr)
def test_a_damaged_alias_file_stops_its_task_alone(
    sound: tuple[Path, dict[str, Answer]], tmp_path: Path, content: bytes | EllipsisType | None
) -> None:
    shutil.copytree(sound[0], tmp_path / "registry")
    registry = Registry.open(tmp_path / "registry")
    path = registry.root / "aliases" / "bugs.json"
    if content is None:  # another task's, which is sound in itself
        content = (registry.root / "aliases" / "colours.json").read_bytes()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.unlink()
        path.mkdir()
    with pytest.raises(IntegrityError, match=r"aliases/bugs\.json") as caught:
        Predictor(registry).predict([PICTURE], task="bugs@1")
    conflict = content == b"<<<<<<< HEAD\n"
    restore = "git checkout HEAD -- registry/aliases/bugs.json"
    assert caught.value.fix == ("adapterbank merge-aliases" if conflict else restore)
    (found,) = Predictor(registry).predict([PICTURE], task="colours")
    assert (found.digest, found.top_k) == sound[1]["colours"]
    assert registry.tasks() == ("bugs", "colours")


def test_an_adapter_of_another_backbone_of_equal_shapes_is_refused_and_none_is_served(
    sound: tuple[Path, dict[str, Answer]], tmp_path: Path
) -> None:
    shutil.copytree(sound[0], tmp_path / "registry")
    registry = Registry.open(tmp_path / "registry")
    other = new_bank(tmp_path / "other").root
    write_weights(Registry.open(other), seed=1)
    shutil.copy(other / "backbone" / "model.safetensors", registry.backbone_weights)
    for ref in ("bugs", "colours"):
        with pytest.raises(IntegrityError, match=r"model\.safetensors: got fingerprint"):
            Predictor(registry).predict([PICTURE], task=ref)
    record = (registry.root / "backbone.json").read_text()
    fingerprint = registry.backbone().fingerprint
    (registry.root / "backbone.json").write_text(record.replace(fingerprint, "ef" * 32))
    assert {p.task for p in registry.verify()} == {None, "bugs", "colours"}  # weights, versions
    files = registry.read(registry.resolve("bugs"))
    with pytest.raises(BackboneMismatch, match="efefefefefef"):
        registry.register("bugs", files)
