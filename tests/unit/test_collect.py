"""Collecting waste: leftovers and unregistered versions go, nothing that anybody needs does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from adapterbank import durable
from adapterbank.errors import AdapterBankError
from adapterbank.registry import publish
from adapterbank.registry.collect import Waste, collect
from adapterbank.registry.layout import Layout
from adapterbank.registry.store import Registry
from adapterbank.registry.task_record import TaskRecord
from adapterbank.registry.verify import Problem, survey
from adapterbank.registry.versions import Version
from tests.registry_samples import files_of, new_registry

# Kills itself before or after the n-th thing it does to the disk, for every n there is.
MORTAL = """
import shutil, sys
from pathlib import Path

from adapterbank.registry.collect import collect
from adapterbank.registry.store import Registry
from tests.mortal import survives

root, sample = Path(sys.argv[1]), Path(sys.argv[2])

def spoil():
    for name in (".tmp-dtd.json", ".tmp-backbone.json-0123"):
        (root / ("aliases" if "dtd" in name else ".") / name).write_bytes(b"half")
    for folder in (sample.name, ".tmp-" + sample.name):
        shutil.copytree(sample, root / "adapters" / "dtd" / folder, dirs_exist_ok=True)

commands = {
    "gc": lambda: collect(root, lambda task, digest: None, dry_run=False),
    "retire": lambda: Registry.open(root).retire("dtd"),
}

calls = ("fsync", "rename", "replace", "unlink", "rmdir")
for command in commands:
    last = 0
    spoil()
    while not survives(commands[command], last, calls):
        registry = Registry.open(root)
        kinds = {problem.kind for problem in registry.verify()}
        # What a folder that is being deleted still holds is a leftover, never half a version.
        assert kinds <= {"unfinished", "orphan"}, (command, last, registry.verify())
        for version in registry.versions("dtd"):
            registry.read(version)
        if command == "gc":
            commands["gc"]()
            assert registry.verify() == (), (command, last)
            spoil()
        last += 1
    commands["gc"]()
    assert Registry.open(root).verify() == (), command
    print(command, last)
"""


def nobody(task: str, digest: str) -> None:
    """Need no version."""
    assert task
    assert len(digest) == 64


def orphan(registry: Registry, seed: int = 9, task: str = "dtd") -> Path:
    """Put the bytes of a whole version where a writer killed before its record leaves them."""
    other = new_registry(registry.root.parent / f"other{seed}")
    version = other.register(task, files_of(task, seed))
    target = registry.root / "adapters" / task / version.digest
    shutil.copytree(version.path, target)
    return target


def paths(found: tuple[Waste, ...]) -> set[Path]:
    """Return what goes."""
    return {waste.path for waste in found if waste.needed_by is None}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Return a registry with two versions, one of them without any alias."""
    registry = new_registry(tmp_path / "registry")
    for seed in range(2):
        registry.register("dtd", files_of("dtd", seed))
    registry.promote("dtd@1", expected=None)
    return registry


@pytest.mark.parametrize("retired", [False, True])
def test_no_registered_version_is_waste(registry: Registry, retired: bool) -> None:
    if retired:
        registry.retire("dtd")
    assert collect(registry.root, nobody, dry_run=False) == ()
    assert all(registry.read(version) for version in registry.versions("dtd"))


def test_an_unregistered_version_and_leftovers_go_and_the_rest_is_sound(
    registry: Registry,
) -> None:
    root = registry.root
    whole, homeless = orphan(registry, 7), orphan(registry, 8, task="pets")
    files = (root / ".tmp-backbone.json-12", root / "aliases" / ".tmp-dtd.json")
    for file in files:
        file.write_bytes(b"half")
    half = root / "adapters" / "dtd" / ".tmp-abc-12"
    half.mkdir()
    (half / "README.md").write_bytes(b"1234")
    said = collect(root, nobody, dry_run=True)
    assert paths(said) == {whole, homeless, half, *files}
    assert all(path.exists() for path in paths(said))
    sizes = {waste.path: waste.size_bytes for waste in said}
    assert sizes[half] == 4
    assert sizes[whole] == sum(file.stat().st_size for file in whole.iterdir())
    assert collect(root, nobody, dry_run=False) == said
    assert not any(path.exists() for path in paths(said))
    assert registry.verify() == ()
    assert collect(root, nobody, dry_run=False) == ()


def test_what_somebody_needs_stays_and_is_told(registry: Registry) -> None:
    path = orphan(registry)
    asked = []

    def keep(task: str, digest: str) -> str | None:
        asked.append((task, digest))
        return "commit 1234"

    (waste,) = collect(registry.root, keep, dry_run=False)
    assert (waste.path, waste.needed_by, asked) == (path, "commit 1234", [("dtd", path.name)])
    assert path.is_dir()


def test_what_is_not_the_registrys_own_stays(registry: Registry) -> None:
    folder = registry.root / "adapters" / "dtd"
    (folder / "notes").mkdir()
    (folder / "notes.txt").write_text("mine")
    damaged = orphan(registry)
    (damaged / "README.md").write_bytes(b"another")
    (registry.root / "adapters" / "link").symlink_to(registry.root.parent)
    assert collect(registry.root, nobody, dry_run=False) == ()
    assert (folder / "notes").is_dir()
    assert (folder / "notes.txt").exists()
    assert damaged.is_dir()


def test_a_link_among_leftovers_is_deleted_and_not_followed(
    registry: Registry, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    link = registry.root / "adapters" / "dtd" / ".tmp-link"
    link.symlink_to(precious)
    assert paths(collect(registry.root, nobody, dry_run=False)) == {link}
    assert not link.is_symlink()
    assert (precious / "file").exists()


def test_a_task_with_a_damaged_record_loses_no_version(registry: Registry) -> None:
    path = orphan(registry)
    (registry.root / "aliases" / "dtd.json").write_text("{")
    assert collect(registry.root, nobody, dry_run=False) == ()
    assert path.is_dir()


def test_nothing_is_collected_under_a_writer(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = orphan(registry)
    real = durable.locked
    monkeypatch.setattr(durable, "locked", lambda lock: real(lock, timeout_s=0.05))
    with (
        real(registry.root / ".lock"),
        pytest.raises(AdapterBankError, match="held by another process"),
    ):
        collect(registry.root, nobody, dry_run=False)
    assert path.is_dir()


def test_a_collector_or_a_removal_killed_anywhere_loses_nothing_and_can_be_repeated(
    registry: Registry, tmp_path: Path
) -> None:
    sample: Version = new_registry(tmp_path / "other").register("dtd", files_of("dtd", 9))
    done = subprocess.run(
        [sys.executable, "-c", MORTAL, str(registry.root), str(sample.path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    points = dict(line.split() for line in done.stdout.splitlines())
    assert int(points["gc"]) > 20
    assert int(points["retire"]) > 6
    assert [(e.action, e.to_version) for e in registry.history("dtd")[-1:]] == [("retire", None)]
    assert len(registry.history("dtd")) == 4


def test_gc_waits_for_a_version_that_is_written_and_not_yet_recorded(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, go_on = Event(), Event()
    real = publish.save_record

    def slow(layout: Layout, record: TaskRecord) -> None:
        written.set()
        assert go_on.wait(30)
        real(layout, record)

    monkeypatch.setattr("adapterbank.registry.store.save_record", slow)
    with ThreadPoolExecutor() as pool:
        registering = pool.submit(registry.register, "dtd", files_of("dtd", 9))
        assert written.wait(30)
        collecting = pool.submit(collect, registry.root, nobody, dry_run=False)
        # Whole and in its place, and nothing names it yet: what gc would delete.
        assert [problem.kind for problem in survey_of(registry)] == ["orphan"]
        with pytest.raises(TimeoutError):
            collecting.result(timeout=0.2)
        go_on.set()
        assert collecting.result(timeout=30) == ()
        assert registry.read(registering.result())
    assert registry.verify() == ()


def survey_of(registry: Registry) -> tuple[Problem, ...]:
    """Look without the lock that `verify` takes."""
    return tuple(survey(Layout(root=registry.root), registry.tasks(), everything=True))
