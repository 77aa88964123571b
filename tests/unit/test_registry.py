"""The registry as its users see it: register, resolve, read, promote, roll back, verify."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from adapterbank.errors import (
    AdapterBankError,
    BackboneMismatch,
    ConflictError,
    FetchError,
    InputError,
    IntegrityError,
    UnknownName,
)
from adapterbank.records import Reference
from adapterbank.registry.aliases import ANY
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from tests.registry_samples import BACKBONE, config_of, files_of, new_registry


@pytest.fixture(params=["registry", "my régistry ☂"])
def registry(tmp_path: Path, request: pytest.FixtureRequest) -> Registry:
    return new_registry(tmp_path / request.param)


def _register(registry: Registry, task: str, *seeds: int) -> list[Version]:
    return [registry.register(task, files_of(task, seed), actor="ada") for seed in seeds]


def test_what_was_registered_is_read_back_byte_for_byte(registry: Registry) -> None:
    files = files_of("dtd")
    version = registry.register("dtd", files, actor="ada", reason="first")
    assert (version.task, version.version, str(version)) == ("dtd", 1, "dtd@1")
    assert version.path == registry.root / "adapters" / "dtd" / version.digest
    read = registry.read(version)
    assert {name: read[name] for name in files} == files
    assert set(read) == {*files, "manifest.json"}
    assert registry.tasks() == ("dtd",)
    assert registry.versions("dtd") == (version,)
    assert registry.verify() == ()


def test_the_same_bytes_are_the_same_version(registry: Registry) -> None:
    first, second, again = _register(registry, "dtd", 0, 1, 0)
    assert again == first
    assert second.version == 2
    assert len(registry.history("dtd")) == 2
    assert registry.register("dtd", registry.read(first)) == first


def test_numbers_are_per_task(registry: Registry) -> None:
    _register(registry, "dtd", 0, 1)
    assert registry.register("eurosat", files_of("eurosat")).version == 1
    assert registry.tasks() == ("dtd", "eurosat")


def test_history_has_the_clock_the_actor_and_the_reason(registry: Registry) -> None:
    registry.register("dtd", files_of("dtd"), actor="ada", reason="first")
    registry.promote("dtd@1", expected=None, actor="bob", reason="why not")
    events = registry.history("dtd")
    assert [(e.actor, e.reason, e.time) for e in events] == [
        ("ada", "first", "2026-01-02T03:04:05Z"),
        ("bob", "why not", "2026-01-02T03:04:05Z"),
    ]


def test_without_an_actor_it_is_the_user_and_the_time_is_now(tmp_path: Path) -> None:
    new_registry(tmp_path)
    registry = Registry.open(tmp_path)
    registry.register("dtd", files_of("dtd"))
    (event,) = registry.history("dtd")
    assert event.actor
    assert event.time.endswith("Z")


@pytest.mark.parametrize("form", ["dtd@2", "dtd", "dtd@champion", "dtd@sha256:{digest:.8}"])
def test_all_forms_of_a_reference_resolve(registry: Registry, form: str) -> None:
    second = _register(registry, "dtd", 0, 1)[1]
    registry.promote("dtd@2", expected=None)
    text = form.format(digest=second.digest)
    assert registry.resolve(text) == second
    assert registry.resolve(Reference.parse(text)) == second


def test_unknown_names_list_their_neighbours(registry: Registry) -> None:
    _register(registry, "dtd", 0)
    with pytest.raises(UnknownName, match="Did you mean 'dtd'"):
        registry.resolve("dtf")
    with pytest.raises(UnknownName, match="champion"):
        registry.resolve("dtd")
    with pytest.raises(UnknownName, match="eurosat"):
        registry.versions("eurosat")


@pytest.mark.parametrize("task", ["../x", "a/b", "", ".hidden", "DTD"])
def test_a_name_that_is_a_path_is_refused_everywhere(registry: Registry, task: str) -> None:
    with pytest.raises(InputError):
        registry.register(task, files_of("dtd"))
    with pytest.raises(InputError):
        registry.resolve(Reference(task=task, version=1))
    with pytest.raises(InputError):
        registry.history(task)
    with pytest.raises(InputError):
        registry.rollback(task)


def test_a_promotion_says_what_it_did(registry: Registry) -> None:
    first, second = _register(registry, "dtd", 0, 1)
    move = registry.promote(f"dtd@sha256:{first.digest[:8]}", expected=None)
    assert (move.alias, move.before, move.after, move.moved) == ("champion", None, first, True)
    move = registry.promote("dtd@2", expected=1, verdict={"ok": True})
    assert (move.before, move.after) == (1, second)
    assert move.event is not None
    assert move.event.verdict == {"ok": True}
    assert registry.aliases("dtd") == {"champion": 2, "previous": 1}
    assert registry.history("dtd")[-1] == move.event


def test_promoting_the_champion_again_says_that_nothing_moved(registry: Registry) -> None:
    _register(registry, "dtd", 0)
    registry.promote("dtd@1", expected=None)
    before = registry.history("dtd")
    move = registry.promote("dtd@1", expected=ANY)
    assert (move.moved, move.before, move.after.version, move.event) == (False, 1, 1, None)
    assert registry.history("dtd") == before


def test_a_promotion_from_another_alias_follows_it(registry: Registry) -> None:
    _register(registry, "dtd", 0, 1)
    registry.promote("dtd@2", alias="challenger", expected=None)
    assert registry.promote("dtd@challenger", expected=None).after.version == 2


def test_a_lost_race_is_a_conflict_that_moves_nothing(registry: Registry) -> None:
    _register(registry, "dtd", 0, 1, 2)
    registry.promote("dtd@2", expected=None)
    with pytest.raises(ConflictError, match="is version 2"):
        registry.promote("dtd@3", expected=1)
    assert registry.aliases("dtd") == {"champion": 2}


def test_a_rollback_is_history_too(registry: Registry) -> None:
    _register(registry, "dtd", 0, 1, 2)
    for number in (1, 2, 3):
        registry.promote(f"dtd@{number}", expected=ANY)
    assert [registry.rollback("dtd").after.version for _ in range(2)] == [2, 1]
    assert [e.action for e in registry.history("dtd")][-2:] == ["rollback", "rollback"]
    with pytest.raises(ConflictError):
        registry.rollback("dtd", expected=3)


def test_a_damaged_version_is_never_promoted_nor_rolled_back_to(registry: Registry) -> None:
    first, _, third = _register(registry, "dtd", 0, 1, 2)
    registry.promote("dtd@1", expected=None)
    registry.promote("dtd@2", expected=1)
    for version in (first, third):
        (version.path / "README.md").write_bytes(b"# B card\n")
    with pytest.raises(IntegrityError, match=r"README\.md"):
        registry.promote("dtd@3", expected=2)
    with pytest.raises(IntegrityError, match=r"README\.md"):
        registry.rollback("dtd")
    assert registry.aliases("dtd") == {"champion": 2, "previous": 1}


def test_a_damaged_champion_can_be_rolled_back(registry: Registry) -> None:
    second = _register(registry, "dtd", 0, 1)[1]
    registry.promote("dtd@1", expected=None)
    registry.promote("dtd@2", expected=1)
    (second.path / "adapter_config.json").unlink()
    assert registry.rollback("dtd").after.version == 1


def test_swapped_files_between_versions_are_refused(registry: Registry) -> None:
    first, second = _register(registry, "dtd", 0, 1)
    name = "adapter_model.safetensors"
    mine, theirs = (first.path / name).read_bytes(), (second.path / name).read_bytes()
    (first.path / name).write_bytes(theirs)
    (second.path / name).write_bytes(mine)
    for version in (first, second):
        with pytest.raises(IntegrityError, match="adapter_model"):
            registry.read(version)
    assert [p.kind for p in registry.verify()] == ["damaged", "damaged"]


def test_registering_the_same_bytes_mends_a_damaged_version(registry: Registry) -> None:
    (version,) = _register(registry, "dtd", 0)
    (version.path / "README.md").write_bytes(b"x")
    (version.path / "extra").mkdir()
    assert _register(registry, "dtd", 0) == [version]
    assert registry.verify() == ()


def test_a_whole_version_that_was_never_registered_is_an_orphan_and_adopted(
    registry: Registry, tmp_path: Path
) -> None:
    other = new_registry(tmp_path / "other")
    (version,) = _register(other, "dtd", 0)
    orphan = registry.root / "adapters" / "dtd" / version.digest
    orphan.parent.mkdir(parents=True)
    version.path.rename(orphan)
    assert [(p.kind, p.task, p.path) for p in registry.verify()] == [("orphan", "dtd", orphan)]
    with pytest.raises(UnknownName):
        registry.resolve(f"dtd@sha256:{version.digest}")
    inode = (orphan / "README.md").stat().st_ino
    assert _register(registry, "dtd", 0)[0].path == orphan
    assert (orphan / "README.md").stat().st_ino == inode  # adopted, not written again
    assert registry.verify() == ()


def test_leftovers_are_reported_not_served_and_swept_by_the_next_writer(
    registry: Registry,
) -> None:
    (version,) = _register(registry, "dtd", 0)
    folder = version.path.with_name(".tmp-abc")
    folder.mkdir()
    (folder / "README.md").write_bytes(b"half")
    file = registry.root / "aliases" / ".tmp-dtd.json"
    file.write_bytes(b"half")
    assert {(p.kind, p.path) for p in registry.verify()} == {
        ("unfinished", folder),
        ("unfinished", file),
    }
    _register(registry, "dtd", 1)
    assert registry.verify() == ()


def test_strangers_are_reported(registry: Registry) -> None:
    (version,) = _register(registry, "dtd", 0)
    strangers = {
        version.path.with_name("notes.txt"),
        registry.root / "aliases" / "README",
        registry.root / "adapters" / "loose",
    }
    for path in strangers:
        path.write_bytes(b"")
    assert {p.path for p in registry.verify()} == strangers
    assert {p.kind for p in registry.verify()} == {"foreign"}


def test_one_damaged_task_leaves_the_others_working(registry: Registry) -> None:
    _register(registry, "dtd", 0)
    _register(registry, "eurosat", 0)
    record = registry.root / "aliases" / "dtd.json"
    record.write_bytes(b"<<<<<<< HEAD\n" + record.read_bytes())
    with pytest.raises(IntegrityError, match=r"dtd\.json"):
        registry.resolve("dtd@1")
    with pytest.raises(IntegrityError, match=r"dtd\.json"):
        registry.register("dtd", files_of("dtd", 1))
    assert registry.resolve("eurosat@1").version == 1
    (problem,) = registry.verify()
    assert (problem.kind, problem.task, problem.path) == ("damaged", "dtd", record)


def test_verify_of_a_reference_or_a_task_looks_at_that_alone(registry: Registry) -> None:
    first, _ = _register(registry, "dtd", 0, 1)
    _register(registry, "eurosat", 0)
    (first.path / "README.md").unlink()
    assert len(registry.verify("dtd")) == 1
    assert len(registry.verify("dtd@1")) == 1
    assert registry.verify("dtd@2") == ()
    assert registry.verify("eurosat") == ()
    with pytest.raises(UnknownName):
        registry.verify("euro")


def test_verify_tells_how_far_it_is(registry: Registry) -> None:
    _register(registry, "dtd", 0, 1)
    calls: list[tuple[int, int]] = []
    registry.verify(progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]


def test_a_symbolic_link_out_of_the_registry_is_not_followed(
    registry: Registry, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (registry.root / "adapters").mkdir()
    (registry.root / "adapters" / "dtd").symlink_to(outside)
    with pytest.raises(IntegrityError, match="symbolic link"):
        _register(registry, "dtd", 0)
    assert list(outside.iterdir()) == []


def test_nothing_is_registered_without_a_backbone(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "registry", create=True)
    with pytest.raises(FetchError, match="no backbone"):
        registry.backbone()
    with pytest.raises(FetchError, match="no backbone"):
        _register(registry, "dtd", 0)


def test_the_backbone_stays_while_there_are_versions(registry: Registry) -> None:
    registry.set_backbone(replace(BACKBONE, fingerprint="ef" * 32))  # nothing depends on it yet
    registry.set_backbone(BACKBONE)
    _register(registry, "dtd", 0)
    registry.set_backbone(BACKBONE)
    registry.set_backbone(replace(BACKBONE, uri="file://the-same-weights"))
    with pytest.raises(ConflictError, match="efefefefefef"):
        registry.set_backbone(replace(BACKBONE, fingerprint="ef" * 32))
    assert registry.backbone().uri == "file://the-same-weights"


def test_a_refused_version_leaves_nothing_behind(registry: Registry) -> None:
    config = config_of("dtd")
    config["backbone"]["fingerprint"] = "ef" * 32
    with pytest.raises(BackboneMismatch):
        registry.register("dtd", files_of("dtd", config=config))
    with pytest.raises(IntegrityError, match="manifest"):
        registry.register("dtd", {**files_of("dtd"), "manifest.json": b"{}"})
    assert registry.tasks() == ()
    assert not (registry.root / "adapters").exists()


def test_a_damaged_backbone_record_is_a_problem_not_a_crash(registry: Registry) -> None:
    _register(registry, "dtd", 0)
    (registry.root / "backbone.json").write_bytes(b"{")
    (problem,) = registry.verify()
    assert problem.path == registry.root / "backbone.json"


def test_a_folder_is_registered_as_it_lies(registry: Registry, tmp_path: Path) -> None:
    candidate = tmp_path / "candidate"
    candidate.mkdir()
    for name, data in files_of("dtd").items():
        (candidate / name).write_bytes(data)
    version = registry.register_directory(candidate, task="dtd")
    assert registry.register("dtd", files_of("dtd")) == version
    (candidate / "weights.pkl").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"weights\.pkl"):
        registry.register_directory(candidate, task="dtd")


def test_files_are_readable_by_all_and_records_by_people(registry: Registry) -> None:
    mask = os.umask(0o022)
    try:
        (version,) = _register(registry, "dtd", 0)
    finally:
        os.umask(mask)
    record = registry.root / "aliases" / "dtd.json"
    for path in (record, *version.path.iterdir()):
        assert path.stat().st_mode & 0o777 == 0o644
    assert version.path.stat().st_mode & 0o777 == 0o755
    assert json.loads(record.read_bytes())["versions"] == [{"version": 1, "digest": version.digest}]
    assert record.read_bytes().endswith(b"}\n")


def test_a_moved_or_linked_registry_works_on(registry: Registry, tmp_path: Path) -> None:
    _register(registry, "dtd", 0)
    registry.root.rename(tmp_path / "moved")
    (tmp_path / "link").symlink_to(tmp_path / "moved")
    linked = Registry.open(tmp_path / "link")
    linked.promote("dtd@1", expected=None)
    assert Registry.open(str(tmp_path / "moved")).resolve("dtd").version == 1
    assert linked.verify() == ()


def test_there_is_no_registry_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        Registry.open(tmp_path / "none")


def test_a_refusing_disk_is_an_error_that_says_so(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(registry, "dtd", 0)

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(AdapterBankError, match="No space left on device"):
            _register(registry, "dtd", 1)
    assert registry.verify() == ()
    assert [v.version for v in registry.versions("dtd")] == [1]
    assert _register(registry, "dtd", 1)[0].version == 2


def test_the_registry_needs_no_torch_and_no_tracking() -> None:
    code = (
        "import sys, adapterbank.registry.store, adapterbank.registry.card\n"
        "print([m for m in ('torch', 'mlflow', 'dvc', 'ray', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
