"""What Git knows of a folder, by the ``git`` program; nothing here needs a repository."""

from __future__ import annotations

import os
import re
import shlex
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


_UNTRUSTED: Final = re.compile(r"dubious ownership in repository at '(.*)'")


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

    Where there is no repository nothing can be uncommitted; for ignored files see
    :func:`git_ignored`. Files and folders are relative to ``root``; the files come sorted.

    Raises:
        AdapterBankError: there is a repository, and Git cannot be asked.
    """
    if not _has_repository(root):
        return ()
    new = _ask(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *paths)
    if _git(root, "rev-parse", "--verify", "--quiet", "HEAD") is None:
        # No commit yet: whatever is staged is uncommitted.
        changed = _ask(root, "ls-files", "-z", "--cached", "--", *paths)
    else:
        changed = _ask(root, "diff", "-z", "--name-only", "--relative", "HEAD", "--", *paths)
    return tuple(sorted({name for name in f"{new}\0{changed}".split("\0") if name}))


def git_unmerged(root: Path, *paths: str) -> tuple[str, ...]:
    """Return which files under ``paths`` Git could not merge, relative to ``root`` and sorted.

    Raises:
        AdapterBankError: there is a repository, and Git cannot be asked.
    """
    if not _has_repository(root):
        return ()
    listed = _ask(root, "ls-files", "-z", "--unmerged", "--", *paths)
    return tuple(sorted({line.partition("\t")[2] for line in listed.split("\0") if line}))


def git_ignored(root: Path, *names: str) -> dict[str, str]:
    """Return which files Git will never keep because it is told to ignore them.

    A line that names the bank's own folder from the top, such as ``/registry/aliases/``, is a
    decision about it and is no concern; nor is a bank that is ignored as a whole.

    Args:
        root: the bank.
        names: relative to it; a file need not exist.

    Returns:
        the rule of each ignored file: its place and its text.

    Raises:
        AdapterBankError: there is a repository, and Git cannot be asked.
    """
    if not names or not _has_repository(root):
        return {}
    listed = "\0".join(names)
    told = _ask(root, "check-ignore", "-z", "--verbose", "--stdin", listed=listed).split("\0")
    rules = zip(told[0::4], told[1::4], told[2::4], told[3::4], strict=False)
    ignored = {
        name: f"{place}:{line} {pattern}"
        for place, line, pattern, name in rules
        if not pattern.startswith(("!", "/registry/"))
    }
    return ignored if git_holds(root) else {}


def why_lost(root: Path, name: str) -> str | None:
    """Say that Git is told to ignore a file that clones need; None if it is not."""
    try:
        ignored = git_ignored(root, name)
    except AdapterBankError:
        return None  # of which `status` tells
    return next((told_ignored(name, rule) for rule in ignored.values()), None)


def told_ignored(name: str, rule: str) -> str:
    """Say that a rule keeps a file from clones."""
    return f"{name} is ignored by Git ({rule}), so no clone will have it"


def mend_conflict(root: Path, name: str) -> str:
    """Return the commands that resolve the conflict of a file that Git could not merge."""
    if name == "dvc.lock":
        # Of the other clone, whose versions are not here; ours are, and are added again.
        merging = _git(root, "rev-parse", "--verify", "--quiet", "MERGE_HEAD") is not None
        other = "theirs" if merging else "ours"  # as `git rebase` has them
        return (
            f"git checkout --{other} {name} && git add {name} && adapterbank pull"
            " && adapterbank sync"
        )
    if name == "registry/backbone.json":
        return f"git checkout --ours {name} && git add {name}"
    return "adapterbank merge-aliases"


def git_stage(root: Path, name: str, stage: int) -> bytes | None:
    """Return a text file that Git could not merge as one side has it; None if that has none.

    Args:
        root: the bank.
        name: relative to it.
        stage: 1 is the common ancestor's, 2 ours, 3 theirs.
    """
    text = _git(root, "show", f":{stage}:./{name}")
    return None if text is None else text.encode()


def git_add(root: Path, name: str) -> None:
    """Tell Git that a file is as it is to be committed.

    Raises:
        AdapterBankError: Git refused.
    """
    _ask(root, "add", "--force", "--", name)


def git_merge_driver(root: Path, name: str, title: str, command: str) -> bool:
    """Let Git merge by a command what ``.gitattributes`` gives to it; return whether that is new.

    It stands in the repository's own configuration, which no clone has.
    """
    keys = {f"merge.{name}.name": title, f"merge.{name}.driver": command}
    if not _has_repository(root) or all(
        _git(root, "config", "--get", key) == value for key, value in keys.items()
    ):
        return False
    return all(_git(root, "config", key, value) is not None for key, value in keys.items())


def git_mention(root: Path, path: str, text: str) -> str | None:
    """Return a commit of any branch, tag or stash whose version of a file mentions a text.

    Args:
        root: the bank.
        path: relative to ``root``; the file need not exist now.
        text: searched for literally.

    Returns:
        what to call the newest such commit, or that Git cannot say; None where there is none.
    """
    if not _has_repository(root):
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


def _run(*words: str, listed: str | None = None) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in _REDIRECTIONS}
    # `status` would refresh the index under a lock, in the way of a commit made meanwhile.
    environment = kept | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return subprocess.run(  # noqa: S603  # fixed words and a folder
        words, env=environment, capture_output=True, input=listed, text=True, errors="replace",
        timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip


def _has_repository(root: Path) -> bool:
    """Whether a folder lies in a repository, as far as that can be told without asking Git."""
    return any((folder / ".git").exists() for folder in (root, *root.resolve().parents))


def _ask(root: Path, *words: str, listed: str | None = None) -> str:
    """Return what a git command prints of what is ``listed`` to it, if anything is.

    Raises:
        AdapterBankError: it cannot answer.
    """
    program, fix = shutil.which("git"), f"git -C {shlex.quote(str(root))} status, which says why"
    if program is None:
        reason, fix = "there is no git program on the PATH", "install git"
    else:
        try:
            ran = _run(program, "-C", str(root), *words, listed=listed)
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        else:
            if ran.returncode == 0 or (listed is not None and ran.returncode == 1):  # none of them
                return ran.stdout
            reason = (ran.stderr.strip() or f"exit code {ran.returncode}").splitlines()[0]
            owned = _UNTRUSTED.search(ran.stderr)
            if owned is not None:
                fix = f"git config --global --add safe.directory {shlex.quote(owned[1])}"
    raise AdapterBankError(f"Git could not be asked: {reason}", fix=fix)


def _git(root: Path, *words: str) -> str | None:
    """Return what a git command prints, or None if it cannot answer."""
    try:
        return _ask(root, *words).strip()
    except AdapterBankError:
        return None
