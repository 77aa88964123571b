"""What DVC does to versions that were registered by hand."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapterbank import durable
from adapterbank.bank.keep import keep_versions
from adapterbank.errors import AdapterBankError, IntegrityError
from adapterbank.integrations.dvc import repo
from adapterbank.integrations.dvc.objects import DvcObjects, locked_outputs
from adapterbank.integrations.environment import DEFAULTS
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from tests.cli_samples import PARAMS
from tests.registry_samples import files_of, new_registry

STAGE, OUTPUT = "register@dtd", "registry/adapters/dtd"
PIPELINE = """\
stages:
  register:
    foreach: [dtd]
    do:
      cmd: "true"
      deps: [new]
      outs:
        - registry/adapters/${item}: {persist: true}
"""


def dvc(root: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=root, env={**os.environ, **DEFAULTS}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bank whose register stage has run, for one version."""
    root = tmp_path_factory.mktemp("built") / "bank"
    new_registry(root / "registry").register("dtd", files_of("dtd", 0))
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "new").write_text("what is to be registered")
    (root / "pipelines").mkdir()
    (root / "pipelines" / "params.yaml").write_text(PARAMS)
    repo.ensure_dvc(root, git=False)
    dvc(root, "repro")
    return root


@pytest.fixture
def bank(built: Path, tmp_path: Path) -> Path:
    """Return a bank of the test's own, with a second version that was registered by hand."""
    root = tmp_path / "bank"
    shutil.copytree(built, root)
    Registry.open(root / "registry").register("dtd", files_of("dtd", 1))
    return root


def versions(bank: Path) -> tuple[Version, ...]:
    return Registry.open(bank / "registry").versions("dtd")


def keep(bank: Path, task: str = "dtd") -> str | None:
    return keep_versions(Registry.open(bank / "registry"), task)


def kept(bank: Path, task: str = "dtd") -> set[str]:
    """Return the digests of the versions that ``dvc.lock`` leads to."""
    with DvcObjects(bank) as objects:
        files = objects.locked(f"registry/adapters/{task}") or {}
    return {name.partition("/")[0] for name in files}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mend(bank: Path, version: Version) -> None:
    """Do what the registry says mends a version."""
    registry = Registry.open(bank / "registry")
    with pytest.raises(IntegrityError) as caught:
        registry.read(version)
    assert caught.value.fix is not None
    here = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in caught.value.fix.split(" && "):
        subprocess.run(
            shlex.split(command), cwd=bank, env={**os.environ, **DEFAULTS, **here}, check=True
        )
    registry.read(version)


@pytest.mark.parametrize("damage", ["altered", "extra", "gone", "link"])
def test_mending_a_version_leaves_those_that_dvc_does_not_know(bank: Path, damage: str) -> None:
    first, by_hand = versions(bank)
    if damage == "altered":
        (first.path / "metrics.json").write_text("{}")
    elif damage == "extra":
        (first.path / "metrics.txt").write_text("{}")
    else:
        shutil.rmtree(first.path)
    if damage == "link":
        first.path.symlink_to(by_hand.path)
    mend(bank, first)
    Registry.open(bank / "registry").read(by_hand)


def test_a_version_registered_by_hand_is_kept_by_dvc_once_it_is_told(bank: Path) -> None:
    by_hand = versions(bank)[1]
    assert keep(bank) is None
    assert dvc(bank, "status", STAGE, "--json").strip() == "{}"
    (by_hand.path / "metrics.json").write_text("{}")
    mend(bank, by_hand)
    before = (bank / "dvc.lock").read_bytes()
    assert keep(bank) is None  # nothing to do
    assert (bank / "dvc.lock").read_bytes() == before


def test_what_is_kept_survives_dvc_s_own_forced_pull(bank: Path) -> None:
    assert keep(bank) is None
    dvc(bank, "checkout", "--force")
    assert all(Registry.open(bank / "registry").read(version) for version in versions(bank))


@pytest.mark.parametrize("ran", [False, True], ids=["never ran", "ran before"])
def test_a_version_is_kept_and_a_stage_that_has_yet_to_run_is_not_marked_as_done(
    bank: Path, ran: bool
) -> None:
    if ran:
        (bank / "new").write_text("trained since")
    else:
        (bank / "dvc.lock").unlink()
    assert keep(bank) is None
    assert kept(bank) == {version.digest for version in versions(bank)}
    assert "new" in dvc(bank, "status", STAGE, "--json")


@pytest.mark.parametrize("gone", ["new", "dvc.yaml"])
def test_keeping_a_version_needs_nothing_that_its_stage_reads(bank: Path, gone: str) -> None:
    (bank / gone).unlink()
    assert keep(bank) is None
    assert kept(bank) == {version.digest for version in versions(bank)}


def test_a_version_whose_bytes_are_not_here_stays_in_the_list(bank: Path) -> None:
    first, by_hand = versions(bank)
    shutil.rmtree(first.path)
    assert keep(bank) is None
    assert kept(bank) == {first.digest, by_hand.digest}


def test_damaged_bytes_are_not_kept(bank: Path) -> None:
    first, by_hand = versions(bank)
    (by_hand.path / "metrics.json").write_text("{}")
    assert keep(bank) is None
    assert kept(bank) == {first.digest}


def test_a_lost_list_is_made_anew_only_of_all_versions(bank: Path) -> None:
    shutil.rmtree(bank / ".dvc" / "cache")
    aside = versions(bank)[0].path.rename(bank / "aside")
    assert "neither in the cache nor in the remote" in str(keep(bank))
    aside.rename(versions(bank)[0].path)
    assert keep(bank) is None
    assert kept(bank) == {version.digest for version in versions(bank)}


@pytest.mark.parametrize("link", ["reflink,copy", "copy", "hardlink", "symlink"])
def test_versions_that_dvc_links_to_a_shared_cache_are_read_and_never_written_through(
    bank: Path, link: str
) -> None:
    assert keep(bank) is None
    dvc(bank, "config", "cache.type", link)
    dvc(bank, "config", "cache.dir", str(bank.parent / "shared"))
    shared = (bank / ".dvc" / "cache").rename(bank.parent / "shared")
    dvc(bank, "checkout", "--relink", OUTPUT)
    first, by_hand = versions(bank)
    assert (first.path / "metrics.json").is_symlink() == (link == "symlink")
    assert ((first.path / "metrics.json").stat().st_nlink > 1) == (link == "hardlink")
    registry = Registry.open(bank / "registry")
    assert registry.verify() == ()
    before = content(shared)

    registry.promote("dtd@2", expected=None)
    registry.register("dtd", files_of("dtd", 0))
    durable.replace_file(first.path / "metrics.json", b"{}")  # as any writer of ours
    durable.replace_directory(by_hand.path, {"metrics.json": b"{}"})

    assert content(shared) == before
    mend(bank, first)
    mend(bank, by_hand)
    assert content(shared) == before


def test_a_damaged_object_that_a_version_links_to_is_told_and_not_served(bank: Path) -> None:
    assert keep(bank) is None
    dvc(bank, "config", "cache.type", "symlink")
    dvc(bank, "checkout", "--relink", OUTPUT)
    first = versions(bank)[0]
    kept = (first.path / "metrics.json").resolve()
    kept.chmod(0o644)
    kept.write_bytes(kept.read_bytes()[::-1])
    with pytest.raises(IntegrityError, match="whose content has the MD5"):
        Registry.open(bank / "registry").read(first)


def test_a_task_that_no_stage_builds_is_kept_too(bank: Path) -> None:
    registry = Registry.open(bank / "registry")
    made = registry.register("tints", files_of("tints", 2))
    assert keep(bank, "tints") is None
    assert kept(bank, "tints") == {made.digest}
    assert dvc(bank, "status", STAGE, "--json").strip() != "{}"  # as before: nothing else changed


def test_a_folder_that_dvc_does_not_know_says_so(tmp_path: Path) -> None:
    new_registry(tmp_path / "registry").register("dtd", files_of("dtd", 0))
    assert keep(tmp_path) == f"{tmp_path} is not under DVC"


LOCKS = {
    "list": b"[]",
    "text": b"x",
    "stages-a-list": b"stages: [1]",
    "stage-a-text": b"stages: {a: x}",
    "outs-of-texts": b"stages: {a: {outs: [x]}}",
    "date": b"stages: {a: {day: 2026-02-30, outs: [{path: p, md5: m}]}}",
    "no-path": b"stages: {a: {outs: [{md5: m}]}}",
    "path-a-list": b"stages: {a: {outs: [{path: [p], md5: m}]}}",
    "deep": b"[" * 100_000,
    "broken": b"stages: {",
    "latin": b"stages: {a: \xe9}",
}


@pytest.mark.parametrize("content", LOCKS.values(), ids=LOCKS)
def test_a_lock_file_that_is_none_is_told_with_what_brings_it_back(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "dvc.lock"
    path.write_bytes(content)
    try:
        found = locked_outputs(path)
    except AdapterBankError as error:
        assert error.fix == "git checkout HEAD -- dvc.lock"  # noqa: PT017  # some of them say nothing wrong
    else:
        assert found in ({}, {"p": "m"}, {"['p']": "m"})


def test_stages_that_this_program_runs_are_told_of_no_other_bank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERBANK_BANK", "/another")
    (tmp_path / "dvc.yaml").write_text(
        "stages: {look: {cmd: 'test -z \"$ADAPTERBANK_BANK\" && touch seen', outs: [seen]}}\n"
    )
    repo.ensure_dvc(tmp_path, git=False)
    repo.repro(tmp_path, quiet=True)
    assert (tmp_path / "seen").exists()
