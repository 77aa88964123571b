"""`push` and `pull` of one version, one task and everything, by real DVC and a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from adapterbank.__main__ import main
from adapterbank.bank.bank import Bank
from adapterbank.bank.keep import keep_versions
from adapterbank.errors import AdapterBankError, FetchError, UnknownName
from adapterbank.registry.store import Registry
from adapterbank.sync.remote import pull, push
from adapterbank.sync.repair import sync
from adapterbank.sync.status import find_discrepancies
from tests.bank_samples import damage
from tests.dvc_samples import clone, commit, copy, dvc, make_dvc_bank
from tests.registry_samples import files_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a committed bank that nobody changes."""
    root = tmp_path_factory.mktemp("made") / "a bänk"
    make_dvc_bank(root)
    return root


@pytest.fixture
def registry(made: Path, tmp_path: Path) -> Registry:
    return copy(made, tmp_path / "own")


def names(versions: tuple[object, ...]) -> list[str]:
    return [str(version) for version in versions]


def digests(registry: Registry) -> list[str]:
    return [
        version.digest
        for task in registry.tasks()
        for version in registry.versions(task)
        if version.path.is_dir()
    ]


def places(registry: Registry, place: str) -> list[str]:
    return [one.message for one in find_discrepancies(registry) if one.place == place]


def test_a_version_then_a_task_then_everything_reach_an_empty_clone(
    registry: Registry, tmp_path: Path
) -> None:
    assert places(registry, "remote") == [
        f"the DVC remote lacks {what}"
        for what in ("registry/backbone", "digits@1", "digits@2", "textures@1")
    ]

    # The task goes whole: DVC takes a list of files that is there for complete.
    assert names(push(registry, "digits@1").new) == ["digits@1"]
    assert len(places(registry, "remote")) == 1
    theirs = clone(registry.root.parent, tmp_path / "own" / "clone")
    assert names(pull(theirs, "digits@1").new) == ["digits@1"]
    assert digests(theirs) == [registry.resolve("digits@1").digest]
    assert theirs.read(theirs.resolve("digits@1")) == registry.read(registry.resolve("digits@1"))
    assert theirs.backbone_weights.read_bytes() == registry.backbone_weights.read_bytes()

    moved = pull(theirs, "digits")
    assert (names(moved.versions), names(moved.new)) == (["digits@1", "digits@2"], ["digits@2"])

    assert names(push(registry).new) == ["textures@1"]
    assert names(pull(theirs).new) == ["textures@1"]
    assert digests(theirs) == digests(registry)
    assert theirs.verify() == ()
    assert (push(registry).new, pull(theirs).new) == ((), ())
    # A catalogue is not cloned, and no method has what versions of tests have.
    assert {one.place for one in find_discrepancies(theirs)} == {"registry", "mlflow"}


def test_a_remote_that_has_a_part_of_a_task_is_completed(registry: Registry) -> None:
    root = registry.root.parent
    dvc(root, "push", "--quiet", str(registry.resolve("digits@1").path.relative_to(root)))
    dvc(root, "push", "--quiet")  # which DVC believes to be complete
    assert [text for text in places(registry, "remote") if "digits@2" in text]

    assert names(push(registry).new) == ["digits@2"]

    assert places(registry, "remote") == []


def test_pulling_mends_a_version_and_keeps_what_dvc_does_not_know(registry: Registry) -> None:
    push(registry)
    new = registry.register("digits", files_of("digits", 9))
    damaged = registry.resolve("digits@1")
    damage(damaged.path / "adapter_model.safetensors")

    assert names(pull(registry, "digits").new) == ["digits@1"]

    assert registry.read(damaged)
    assert registry.read(new)


def test_a_damaged_remote_is_refused_and_not_believed_later(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(registry)
    theirs = clone(registry.root.parent, tmp_path / "own" / "clone")
    data = registry.read(registry.resolve("digits@2"))["adapter_model.safetensors"]
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    kept = registry.root.parent.parent / "store" / "files" / "md5" / md5[:2] / md5[2:]
    kept.chmod(0o644)
    for other in (b"not what was pushed", None):
        kept.write_bytes(other) if other else kept.unlink()
        assert main(["pull", "--bank", str(theirs.root.parent)]) == 4
        assert "no sound adapter_model.safetensors of digits@2" in capsys.readouterr().err
        assert digests(theirs) == [
            registry.resolve(ref).digest for ref in ("digits@1", "textures@1")
        ]
        # DVC believes its cache, and would bring it back for ever.
        assert not (theirs.root.parent / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).exists()
    assert names(push(registry).new) == ["digits@2"]
    assert names(pull(theirs).new) == ["digits@2"]
    assert theirs.verify() == ()


def test_what_dvc_does_not_keep_is_not_said_to_be_pushed(registry: Registry) -> None:
    new = registry.register("digits", files_of("digits", 9))
    assert f"dvc.lock does not have {new}" in places(registry, "dvc")
    with pytest.raises(AdapterBankError, match=r"dvc\.lock does not have digits@3"):
        push(registry, "digits")
    dvc(registry.root.parent, "commit", "--force", "--quiet", "register@digits")
    assert places(registry, "dvc") == []
    assert "digits@3" in names(push(registry, "digits").new)


def test_sync_lets_dvc_keep_what_it_does_not(registry: Registry) -> None:
    registry.register("digits", files_of("digits", 9))
    report = sync(Bank.open(registry.root.parent))
    assert report.complete, report
    assert report.failed == []
    assert {one.place for one in report.left} == {"registry", "git", "remote"}  # the user's
    assert names(push(registry, "digits").new) == ["digits@1", "digits@2", "digits@3"]


@pytest.mark.slow
def test_an_emptied_cache_is_named_and_filled_again(registry: Registry) -> None:
    assert places(registry, "dvc") == []
    shutil.rmtree(registry.root.parent / ".dvc" / "cache")
    assert len(places(registry, "dvc")) == 4
    with pytest.raises(AdapterBankError):
        push(registry)
    assert sync(Bank.open(registry.root.parent)).complete
    assert places(registry, "dvc") == []


def test_the_commands_answer_in_json(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--bank", str(registry.root.parent), "--json"]
    for command in ("push", "pull"):
        assert main([command, "textures@1", *place]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert [(one["task"], one["version"]) for one in answer["versions"]] == [("textures", 1)]
        assert len(answer["new"]) == (command == "push")
    assert main(["pull", "nobody", *place]) == 3


def test_without_a_remote_or_a_name_nothing_moves(registry: Registry) -> None:
    with pytest.raises(UnknownName):
        pull(registry, "nobody")
    dvc(registry.root.parent, "remote", "remove", "store")
    commit(registry.root.parent)
    for move in (push, pull):
        with pytest.raises(FetchError, match="no default DVC remote"):
            move(registry)


def test_a_clone_before_its_pull_is_not_called_damaged(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(registry)
    theirs = clone(registry.root.parent, tmp_path / "own" / "clone")
    problems = theirs.verify()
    assert {problem.kind for problem in problems} == {"absent"}
    assert all(str(problem.fix).startswith("adapterbank pull") for problem in problems)
    place = ["--bank", str(theirs.root.parent)]
    assert main(["list", *place]) == 0
    listed = capsys.readouterr()
    assert "not pulled" in listed.out
    assert "damaged" not in listed.out + listed.err
    assert main([*str(problems[-1].fix).split()[1:], *place]) == 0
    assert len(theirs.verify()) == len(problems) - 2  # the backbone comes along


def test_a_version_registered_by_hand_in_a_clone_is_pushed(
    registry: Registry, tmp_path: Path
) -> None:
    push(registry)
    theirs = clone(registry.root.parent, tmp_path / "own" / "clone")
    pull(theirs)
    assert not (theirs.root.parent / "work").exists()
    made = theirs.register("digits", files_of("digits", 9))
    with pytest.raises(AdapterBankError, match=r"dvc\.lock does not have digits@3") as caught:
        push(theirs)
    assert caught.value.fix == "adapterbank sync"
    assert keep_versions(theirs, "digits", [made]) is None  # as `register` and `sync` do
    assert names(push(theirs).new) == ["digits@3"]
    dvc(theirs.root.parent, "pull", "--force", "--quiet")
    assert theirs.read(made)


def test_what_the_cache_has_whole_comes_back_without_a_remote(registry: Registry) -> None:
    root = registry.root.parent
    dvc(root, "remote", "remove", "store")
    damaged = registry.resolve("digits@1")
    damage(damaged.path / "adapter_model.safetensors")
    assert names(pull(registry, "digits@1").new) == ["digits@1"]
    assert registry.read(damaged)


def test_an_object_that_is_damaged_in_the_cache_is_fetched_again(registry: Registry) -> None:
    root = registry.root.parent
    push(registry)
    dvc(root, "config", "cache.type", "symlink")
    dvc(root, "checkout", "--relink", "--quiet")
    version = registry.resolve("digits@1")
    kept = (version.path / "adapter_model.safetensors").resolve()
    kept.chmod(0o644)
    damage(kept)
    assert names(pull(registry).new) == ["digits@1"]
    assert registry.verify() == ()
    dvc(root, "checkout", "--relink", "--force", "--quiet")
    assert registry.verify() == ()
