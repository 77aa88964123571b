"""What Git says of a folder, and that its absence is an answer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from adapterbank.errors import FetchError
from adapterbank.integrations.git import GitState, git_holds, git_init, git_revision, git_toplevel


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
