"""What Git says of a folder, and that its absence is an answer."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from adapterbank.errors import AdapterBankError, FetchError
from adapterbank.integrations.git import (
    GitState,
    git_holds,
    git_ignored,
    git_init,
    git_revision,
    git_toplevel,
    git_uncommitted,
    git_unmerged,
)

ASKED = (git_uncommitted, git_unmerged, git_ignored)


def _git(root: Path, *words: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    command = ["git", "-C", str(root), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("GIT_DIR", raising=False)
    root = tmp_path / "repo"
    git_init_with_commit(root)
    return root


def git_init_with_commit(root: Path) -> None:
    root.mkdir()
    git_init(root)
    (root / "a.txt").write_text("1")
    _git(root, "add", "a.txt")
    _git(root, "commit", "--quiet", "--message", "one")


def test_a_clean_tree_is_its_commit(repository: Path) -> None:
    expected = _git(repository, "rev-parse", "HEAD")

    assert git_revision(repository) == GitState(revision=expected, dirty=False)


@pytest.mark.parametrize("staged", [False, True], ids=["edited", "staged"])
def test_a_changed_tracked_file_makes_it_dirty(
    repository: Path,
    staged: bool,
) -> None:
    (repository / "a.txt").write_text("2")
    if staged:
        _git(repository, "add", "a.txt")

    state = git_revision(repository)
    assert state is not None
    assert state.dirty


def test_untracked_files_do_not_make_it_dirty(repository: Path) -> None:
    (repository / "notes.txt").write_text("x")

    state = git_revision(repository)
    assert state is not None
    assert not state.dirty


def test_a_sub_folder_belongs_to_its_repository(repository: Path) -> None:
    folder = repository / "sub"
    folder.mkdir()

    assert git_revision(folder) == git_revision(repository)
    assert git_toplevel(folder) == repository.resolve()


def test_no_repository_is_no_revision(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None
    assert git_toplevel(tmp_path) is None
    assert git_revision(tmp_path / "nowhere") is None


def test_no_commit_yet_is_no_revision(tmp_path: Path) -> None:
    git_init(tmp_path)

    assert git_revision(tmp_path) is None
    assert git_toplevel(tmp_path) == tmp_path.resolve()


def test_no_git_program_is_no_revision(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert git_revision(repository) is None
    with pytest.raises(FetchError, match="no git program"):
        git_init(tmp_path)


def test_a_hook_s_repository_is_not_mistaken_for_the_folder_s(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = git_revision(repository)
    git_init_with_commit(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))

    assert git_revision(repository) == expected


def test_a_folder_that_is_ignored_is_not_held(repository: Path, tmp_path: Path) -> None:
    (repository / ".gitignore").write_text("/out/\n")
    ignored, other = repository / "out" / "bank", repository / "banks" / "out"
    for folder in (ignored, other):
        folder.mkdir(parents=True)

    assert git_holds(repository)
    assert git_holds(other)
    assert not git_holds(ignored)
    assert not git_holds(tmp_path)
    git_init(ignored)
    assert git_holds(ignored)


def test_a_repository_that_cannot_be_asked_is_told_and_not_taken_for_agreement(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(repository))
    for ask in ASKED:
        with pytest.raises(AdapterBankError, match="no git program") as caught:
            ask(repository, "a.txt")
        assert caught.value.fix == "install git"


def test_a_repository_of_somebody_else_is_told_with_the_command_that_trusts_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(repository.parent / "gitconfig"))
    with pytest.raises(AdapterBankError, match="dubious ownership") as caught:
        git_uncommitted(repository, "a.txt")
    assert caught.value.fix
    subprocess.run(shlex.split(caught.value.fix), check=True)
    assert git_uncommitted(repository, "a.txt") == ()


@pytest.mark.parametrize("damaged", ["index", "HEAD"])
def test_a_damaged_repository_is_told(repository: Path, damaged: str) -> None:
    (repository / ".git" / damaged).write_bytes(b"no such thing")
    with pytest.raises(AdapterBankError, match="Git could not be asked: "):
        git_uncommitted(repository, "a.txt")


def test_where_there_is_no_repository_there_is_nothing_to_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [len(ask(tmp_path, "a.txt")) for ask in ASKED] == [0] * len(ASKED)


@pytest.mark.parametrize(
    ("place", "rule", "told"),
    [
        (".gitignore", "*.json", ".gitignore:1 *.json"),
        ("bank/.gitignore", "*.json", "bank/.gitignore:1 *.json"),
        (".git/info/exclude", "*.json", ".git/info/exclude:1 *.json"),
        (".gitignore", "registry/", ".gitignore:1 registry/"),
        ("bank/.gitignore", "/registry/aliases/", None),  # a decision about this bank
        (".gitignore", "bank", None),  # it is no bank of this repository
        (".gitignore", "*.json\n!a.json", None),
        (".gitignore", "*.txt", None),
    ],
)
def test_a_file_that_git_will_never_keep_is_told_with_the_rule(
    repository: Path, place: str, rule: str, told: str | None
) -> None:
    root = repository / "bank"
    root.mkdir()
    (repository / place).write_text(f"{rule}\n")
    names = ("registry/aliases/a.json", "registry/aliases/ö b.json")[: 1 if "!" in rule else 2]
    assert git_ignored(root, *names) == ({} if told is None else dict.fromkeys(names, told))


def test_a_file_that_is_tracked_is_ignored_by_no_rule(repository: Path) -> None:
    (repository / ".gitignore").write_text("*.txt\n")
    assert git_ignored(repository, "a.txt") == {}
    assert git_ignored(repository) == {}
