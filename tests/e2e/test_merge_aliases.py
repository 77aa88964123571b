"""Two clones moved aliases: Git merges them by what they say, or a command does, or a person."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapterbank.bank.keep import keep_versions
from adapterbank.bank.scaffold import init_bank, install_merge_driver
from adapterbank.errors import IntegrityError
from adapterbank.integrations.git import git_unmerged
from adapterbank.registry.store import Registry
from tests.cli_samples import Cli
from tests.dvc_samples import clone, commit, copy, make_dvc_bank, run
from tests.registry_samples import files_of, new_registry

NAME = "registry/aliases/digits.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a committed bank with three versions of one task that nobody changes."""
    root = tmp_path_factory.mktemp("made") / "bank"
    init_bank(root)
    registry = new_registry(root / "registry")
    for seed in range(3):
        registry.register("digits", files_of("digits", seed), actor="a test")
    registry.promote("digits@1", expected=None, actor="a test")
    commit(root)
    return root


@pytest.fixture
def ours(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    shutil.copytree(made, tmp_path / "ours")
    monkeypatch.chdir(tmp_path / "ours")
    monkeypatch.delenv("ADAPTERBANK_BANK", raising=False)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "a test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@example.org")
    return Registry.open(tmp_path / "ours" / "registry")


@pytest.fixture
def theirs(ours: Registry, tmp_path: Path) -> Registry:
    """Return a clone, whose versions have no bytes."""
    return clone(ours.root.parent, tmp_path / "theirs")


def move(registry: Registry, ref: str, alias: str = "champion") -> None:
    """Move an alias as another clone does, whose versions need not be here, and commit."""
    files = files_of("digits", int(ref[-1]) - 1)
    registry.register("digits", files, actor="somebody")
    registry.promote(ref, expected=registry.aliases("digits").get(alias), alias=alias)
    run(registry.root.parent, "git", "commit", "--quiet", "--all", "--message", f"move {alias}")


def undamaged(registry: Registry) -> bool:
    """Whether all is there; nothing proves what versions of tests answer, which is no damage."""
    return {problem.kind for problem in registry.verify()} <= {"unproven", "absent"}


def pull(root: Path) -> int:
    """Let Git merge what the other clone has committed."""
    words = ["git", "pull", "--quiet", "--no-rebase", "--no-edit", str(root.parent / "theirs")]
    return subprocess.run(words, cwd=root, capture_output=True, check=False).returncode


def follow(command: str) -> None:
    """Do what a message says mends it."""
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for part in command.split(" && "):
        words = shlex.split(part)
        subprocess.run(words, env={**os.environ, "PATH": here}, check=True, capture_output=True)


@pytest.mark.parametrize("driver", [True, False], ids=["with the driver", "without it"])
def test_moves_of_different_aliases_are_merged(
    ours: Registry, theirs: Registry, cli: Cli, driver: bool
) -> None:
    root = ours.root.parent
    move(ours, "digits@2")
    move(theirs, "digits@3", "challenger")
    if not driver:
        (root / ".gitattributes").unlink()
        run(root, "git", "commit", "--quiet", "--all", "--message", "as an older bank")
    assert pull(root) == (0 if driver else 1)
    if not driver:
        ran = cli("show", "digits")
        assert ran.code == IntegrityError.exit_code
        assert "merge conflict" in ran.err
        assert "To mend it: adapterbank merge-aliases" in ran.err
        assert "is in conflict" in cli("status").out
        assert cli("merge-aliases").code == 0
        run(root, "git", "commit", "--quiet", "--no-edit")
    assert ours.aliases("digits") == {"champion": 2, "challenger": 3, "previous": 1}
    assert run(root, "git", "status", "--porcelain", NAME) == ""
    assert undamaged(ours)


@pytest.mark.parametrize("take", ["ours", "theirs"])
@pytest.mark.parametrize("driver", [True, False], ids=["with the driver", "without it"])
def test_two_champions_are_shown_and_one_is_chosen(
    ours: Registry, theirs: Registry, cli: Cli, driver: bool, take: str
) -> None:
    root = ours.root.parent
    if not driver:
        (root / ".git" / "config").write_text("[core]\n\trepositoryformatversion = 0\n")
    champions = [ours.resolve(ref).digest[:12] for ref in ("digits@2", "digits@3")]
    move(ours, "digits@2")
    move(theirs, "digits@3")
    assert pull(root) == 1
    assert "<<<<<<<" in (root / NAME).read_text()

    ran = cli("merge-aliases")
    assert ran.code == 5
    assert "digits@champion was moved by both" in ran.err
    assert all(f"sha256:{champion}" in ran.err for champion in champions)
    assert "--take ours, or --take theirs" in ran.err

    assert cli("merge-aliases", "--take", take).code == 0
    run(root, "git", "commit", "--quiet", "--no-edit")
    assert ours.aliases("digits")["champion"] == (2 if take == "ours" else 3)
    assert ours.history("digits")[-1].to_version == ours.aliases("digits")["champion"]
    assert undamaged(ours)


def test_marks_that_were_committed_are_resolved_too(
    ours: Registry, theirs: Registry, cli: Cli
) -> None:
    root = ours.root.parent
    (root / ".git" / "config").write_text("[core]\n\trepositoryformatversion = 0\n")
    move(ours, "digits@2")
    move(theirs, "digits@3", "challenger")
    pull(root)
    commit(root)
    assert cli("show", "digits").code == IntegrityError.exit_code
    assert cli("merge-aliases").code == 0
    assert ours.aliases("digits") == {"champion": 2, "challenger": 3, "previous": 1}


def test_what_somebody_merged_by_hand_is_kept(ours: Registry, theirs: Registry, cli: Cli) -> None:
    root = ours.root.parent
    move(ours, "digits@2")
    move(theirs, "digits@3")
    assert pull(root) == 1
    by_hand = (theirs.root / "aliases" / "digits.json").read_bytes()
    (root / NAME).write_bytes(by_hand)
    assert cli("merge-aliases").code == 0
    assert (root / NAME).read_bytes() == by_hand
    assert git_unmerged(root, NAME) == ()


def test_without_a_conflict_there_is_nothing_to_do(ours: Registry, cli: Cli) -> None:
    before = (ours.root.parent / NAME).read_bytes()
    ran = cli("merge-aliases")
    assert (ran.code, ran.out) == (0, "No alias file is in conflict.\n")
    assert (ours.root.parent / NAME).read_bytes() == before


def test_a_side_that_is_no_alias_file_changes_nothing(
    ours: Registry, theirs: Registry, cli: Cli
) -> None:
    root = ours.root.parent
    move(ours, "digits@2")
    (theirs.root / "aliases" / "digits.json").write_text("{}\n")
    run(theirs.root.parent, "git", "commit", "--quiet", "--all", "--message", "damage")
    assert pull(root) == 1
    before = (root / NAME).read_bytes()
    assert cli("merge-aliases").code == IntegrityError.exit_code
    assert (root / NAME).read_bytes() == before


def test_the_driver_is_installed_once(ours: Registry) -> None:
    root = ours.root.parent
    assert not install_merge_driver(root)  # `init` did
    (root / ".git" / "config").write_text("[core]\n\trepositoryformatversion = 0\n")
    assert install_merge_driver(root)
    assert not install_merge_driver(root)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_clones_that_registered_and_pushed_become_one_bank(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dvc_bank(tmp_path / "made" / "bank")
    mine = copy(tmp_path / "made" / "bank", tmp_path / "own")
    root = mine.root.parent
    assert cli("push", "--bank", str(root)).code == 0
    other = clone(root, root.parent / "theirs")
    assert cli("pull", "--bank", str(other.root.parent)).code == 0
    for registry, seed in ((mine, 8), (other, 9)):
        registry.register("digits", files_of("digits", seed), actor=f"clone {seed}")
        assert keep_versions(registry, "digits") is None
        assert cli("push", "--bank", str(registry.root.parent)).code == 0
        commit(registry.root.parent)
    other.promote("digits@3", expected=2, actor="clone 9")
    commit(other.root.parent)

    monkeypatch.chdir(root)
    assert pull(root) == 1  # dvc.lock
    assert len(mine.versions("digits")) == 4
    lines = cli("status").out.splitlines()
    mends = {line.partition("git checkout")[2] for line in lines if "git checkout" in line}
    assert len(mends) == 1
    follow(f"git checkout{mends.pop()}")
    commit(root)
    assert undamaged(mine)
    assert cli("push").code == 0
    assert other.aliases("digits")["champion"] == 3
    assert mine.read(mine.resolve("digits@champion")) == other.read(other.resolve("digits@3"))
