"""No link is followed out of a registry, not even to the right bytes, and no name is a path."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterbank.errors import AdapterBankError, InputError, IntegrityError, UnknownName
from adapterbank.records import Reference
from adapterbank.registry.aliases import ANY
from adapterbank.registry.store import Registry
from tests.registry_samples import files_of, new_registry

NAMES = {
    "up": "../x",
    "far-up": "../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "inside": "dtd/../eurosat",
    "slash": "dtd/",
    "backslash": "..\\dtd",
    "empty": "",
    "dot": ".",
    "dots": "..",
    "nul": "dtd\0",
    "newline": "dtd\n",
    "space": " dtd",
    "upper": "DTD",
    "cyrillic": "\u0501td",  # looks like dtd
    "wide": "\uff44\uff54\uff44",
    "joiner": "d\u200dtd",
    "digit": "dtd\u0663",  # a digit, but not one of ours
    "composed": "dtd\u0301",
    "surrogate": "dtd\udcff",
    "percent": "%2e%2e%2fx",
    "home": "~root",
    "option": "-rf",
    "extension": "dtd.json",
    "temporary": ".tmp-dtd",
    "long": "a" * 65,
    "longer": "a" * 1_000_000,
}
names = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Return a registry of two tasks, each with a champion."""
    registry = new_registry(tmp_path / "registry")
    for task in ("dtd", "eurosat"):
        registry.register(task, files_of(task))
        registry.promote(f"{task}@1", expected=None)
    return registry


def content(root: Path) -> dict[Path, bytes | None]:
    """All that is in a folder, links not followed."""
    return {
        path: path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(root.rglob("*"))
    }


TASK_CALLS: dict[str, Callable[[Registry, str], object]] = {
    "register": lambda registry, name: registry.register(name, files_of("dtd")),
    "register_directory": lambda registry, name: registry.register_directory(
        registry.resolve("dtd").path, task=name
    ),
    "versions": lambda registry, name: registry.versions(name),
    "aliases": lambda registry, name: registry.aliases(name),
    "history": lambda registry, name: registry.history(name),
    "overview": lambda registry, name: registry.overview(name),
    "rollback": lambda registry, name: registry.rollback(name),
    "retire": lambda registry, name: registry.retire(name),
    "resolve": lambda registry, name: registry.resolve(Reference(task=name, alias="champion")),
    "resolve-text": lambda registry, name: registry.resolve(f"{name}@1"),
    "verify": lambda registry, name: registry.verify(f"{name}@1"),
    "verdict": lambda registry, name: registry.record_verdict(Reference(task=name, version=1), {}),
    "promote": lambda registry, name: registry.promote(
        Reference(task=name, version=1), expected=ANY
    ),
}


@names
@pytest.mark.parametrize("call", TASK_CALLS.values(), ids=TASK_CALLS)
def test_a_name_that_is_none_of_a_task_is_refused_and_nothing_is_written(
    registry: Registry, tmp_path: Path, call: Callable[[Registry, str], object], name: str
) -> None:
    before = content(tmp_path)
    if name == " dtd" and call in (TASK_CALLS["resolve-text"], TASK_CALLS["verify"]):
        call(registry, name)  # space around a reference means nothing
        return
    with pytest.raises(InputError) as caught:
        call(registry, name)
    assert caught.value.exit_code == 2
    assert content(tmp_path) == before


REFERENCES: dict[str, Callable[[str], Reference | str]] = {
    "alias": lambda name: Reference(task="dtd", alias=name),
    "digest": lambda name: Reference(task="dtd", digest=name),
    "text": lambda name: f"dtd@{name}",
    "digest-text": lambda name: f"dtd@sha256:{name}",
}


@names
@pytest.mark.parametrize("make", REFERENCES.values(), ids=REFERENCES)
def test_an_alias_or_a_digest_that_is_none_means_no_version(
    registry: Registry, make: Callable[[str], Reference | str], name: str
) -> None:
    with pytest.raises((InputError, UnknownName)) as caught:
        registry.resolve(make(name))
    assert caught.value.exit_code in (2, 3)


@names
def test_an_alias_that_is_none_cannot_be_moved(registry: Registry, name: str) -> None:
    before = content(registry.root)
    with pytest.raises(InputError):
        registry.promote("dtd@1", alias=name, expected=ANY)
    with pytest.raises(InputError):
        registry.rollback("dtd", alias=name)
    assert content(registry.root) == before


@pytest.mark.parametrize("version", [0, -1, 2, 10**9, 10**100])
def test_a_number_of_no_version_means_none(registry: Registry, version: int) -> None:
    with pytest.raises((InputError, UnknownName)):
        registry.resolve(Reference(task="dtd", version=version))


def move_out(registry: Registry, place: str) -> Path:
    """Move a part of a registry outside and leave a link to it."""
    path = registry.root / place.format(digest=registry.resolve("dtd").digest)
    outside = registry.root.parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    return path


PLACES = {
    "aliases": "aliases",
    "alias-file": "aliases/dtd.json",
    "adapters": "adapters",
    "task": "adapters/dtd",
    "version": "adapters/dtd/{digest}",
    "file": "adapters/dtd/{digest}/adapter_model.safetensors",
    "manifest": "adapters/dtd/{digest}/manifest.json",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_link_out_of_the_registry_is_refused_by_name_though_the_bytes_are_right(
    registry: Registry, place: str
) -> None:
    path = move_out(registry, place)
    with pytest.raises(IntegrityError, match="is a symbolic link") as caught:
        registry.read(registry.resolve("dtd"))
    assert f"{path} is a symbolic link" in caught.value.message
    assert caught.value.fix
    if place not in ("aliases", "adapters"):  # which hold all tasks
        other = registry.resolve("eurosat")
        assert set(registry.read(other)) == {*files_of("eurosat"), "manifest.json"}
        assert registry.verify("eurosat") == ()
    try:
        problems = registry.verify()
    except IntegrityError as error:
        assert str(path) in error.message  # noqa: PT017  # without records there are no tasks
    else:
        assert any("symbolic link" in problem.message for problem in problems)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_nothing_is_written_through_a_link_out_of_the_registry(
    registry: Registry, place: str
) -> None:
    move_out(registry, place)
    outside = registry.root.parent / "outside"
    before = content(outside) if outside.is_dir() else outside.read_bytes()
    for action in (
        lambda: registry.register("dtd", files_of("dtd", seed=1)),
        lambda: registry.register("dtd", files_of("dtd")),
        lambda: registry.promote("dtd@1", alias="b", expected=ANY),
    ):
        try:
            action()
        except AdapterBankError:
            continue
    assert (content(outside) if outside.is_dir() else outside.read_bytes()) == before


def test_a_linked_record_of_the_backbone_is_refused(registry: Registry, tmp_path: Path) -> None:
    path = registry.root / "backbone.json"
    path.rename(tmp_path / "outside.json")
    path.symlink_to(tmp_path / "outside.json")
    with pytest.raises(IntegrityError, match=r"backbone\.json is a symbolic link"):
        registry.backbone()


def test_a_folder_that_leads_out_is_not_registered_either(
    registry: Registry, tmp_path: Path
) -> None:
    folder = tmp_path / "candidate"
    shutil.copytree(registry.resolve("dtd").path, folder)
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/etc/hostname")
    with pytest.raises(IntegrityError, match=r"README\.md is a symbolic link"):
        registry.register_directory(folder, task="dtd")
