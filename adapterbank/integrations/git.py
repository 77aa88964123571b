"""What Git knows of a folder, by the ``git`` program; nothing here needs a repository."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adapterbank.errors import AdapterBankError, FetchError

_TIMEOUT_S: Final = 60.0
# A hook or an outer command may point git at its own repository; the question is about `root`.
_REDIRECTIONS: Final = frozenset(
    {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"}
)


@dataclass(frozen=True, kw_only=True)
class GitState:
    """The commit a folder stands on, and whether tracked files differ from it."""

    revision: str
    dirty: bool


def git_revision(root: Path) -> GitState | None:
    """Return the commit and state of the working tree that holds ``root``.

    Untracked files do not make it dirty: results, caches and notes come and go.

    Returns:
        None where there is no git program, no repository or no commit yet.
    """
    revision = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if revision is None:
        return None
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return GitState(revision=revision, dirty=changes != "")


def git_toplevel(root: Path) -> Path | None:
    """Return the root of the working tree that holds ``root``, or None."""
    top = _git(root, "rev-parse", "--show-toplevel")
    return Path(top).resolve() if top else None


def git_holds(root: Path) -> bool:
    """Return whether ``root`` is in a working tree that does not ignore it."""
    top = git_toplevel(root)
    if top is None or top == root.resolve():
        return top is not None
    return _git(root, "check-ignore", "--quiet", str(root.resolve())) is None


def git_uncommitted(root: Path, *paths: str) -> tuple[str, ...]:
    """Return which files under ``paths`` are new, changed or deleted since the last commit.

    Ignored files are nobody's concern; where there is no repository nothing can be uncommitted.
    Files and folders are relative to ``root``; the files come sorted.
    """
    if git_toplevel(root) is None:
        return ()
    new = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *paths) or ""
    changed = _git(root, "diff", "-z", "--name-only", "--relative", "HEAD", "--", *paths)
    if changed is None:  # no commit yet: whatever is staged is uncommitted
        changed = _git(root, "ls-files", "-z", "--cached", "--", *paths) or ""
    return tuple(sorted({name for name in f"{new}\0{changed}".split("\0") if name}))


def git_mention(root: Path, path: str, text: str) -> str | None:
    """Return a commit of any branch, tag or stash whose version of a file mentions a text.

    Args:
        root: the bank.
        path: relative to ``root``; the file need not exist now.
        text: searched for literally.

    Returns:
        what to call the newest such commit, or that Git cannot say; None where there is none.
    """
    if not any((folder / ".git").exists() for folder in (root, *root.resolve().parents)):
        return None
    commit = _git(root, "log", "--all", "--max-count=1", "--format=%h", f"-S{text}", "--", path)
    if commit is None:
        return "a commit, perhaps: Git does not answer"
    return f"commit {commit}" if commit else None


def git_init(root: Path) -> None:
    """Make ``root`` a repository of its own.

    Raises:
        FetchError: there is no git program.
        AdapterBankError: git refused.
    """
    program = shutil.which("git")
    if program is None:
        raise FetchError(
            "There is no git program on the PATH",
            fix="install git, or set the bank up without it: adapterbank init --no-git",
        )
    ran = _run(program, "init", "--quiet", str(root))
    if ran.returncode != 0:
        raise AdapterBankError(f"git init {root} failed: {ran.stderr.strip()}")


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in _REDIRECTIONS}
    # `status` would refresh the index under a lock, in the way of a commit made meanwhile.
    environment = kept | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return subprocess.run(  # noqa: S603  # fixed words and a folder
        words, env=environment, capture_output=True, text=True, errors="replace",
        timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip


def _git(root: Path, *words: str) -> str | None:
    """Return what a git command prints, or None if it cannot answer."""
    program = shutil.which("git")
    if program is None or not root.is_dir():
        return None
    try:
        ran = _run(program, "-C", str(root), *words)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout.strip() if ran.returncode == 0 else None
