"""A bank of one's own: the files, the repository and the DVC set-up of ``adapterbank init``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Final

from adapterbank.config.yaml import read_mapping
from adapterbank.durable import make_directory, replace_file, writable
from adapterbank.errors import ConfigError, ConflictError
from adapterbank.integrations.dvc.repo import ensure_dvc
from adapterbank.integrations.git import git_holds, git_init, git_merge_driver
from adapterbank.records import check_utf8

PIPELINE_MARK: Final = "# adapterbank pipeline, layout 1"

# Files that belong to the bank: path in the bank -> template.
_FILES: Final[Mapping[str, str | None]] = {
    "pipelines/params.yaml": "params.yaml",
    "dvc.yaml": "pipeline.yaml",
    "registry/README.md": "registry.md",
    # `release` depends on the folder, and Git keeps no empty ones.
    "registry/adapters/.gitkeep": None,
}

# Files that a folder may already have for its own reasons; missing lines are added.
_LISTS: Final[Mapping[str, str]] = {
    ".gitignore": "gitignore",
    ".gitattributes": "gitattributes",
    ".dvcignore": "dvcignore",
}
_DRIVER: Final = "adapterbank-aliases"


def init_bank(directory: Path, *, git: bool = True) -> list[Path]:
    """Make a folder a bank, or complete one that is unfinished.

    What a bank already has is kept, edited or not; lines are added to ``.gitignore`` and
    ``.dvcignore``. On a finished bank nothing happens.

    Args:
        directory: made if missing; it may hold other things.
        git: put it under Git, in a repository of its own unless it already is in one.

    Returns:
        The files that were made or changed, in a fixed order.

    Raises:
        ConflictError: files that are not a bank's have its names; nothing was written.
        FetchError: there is no git program, and ``git`` asks for one.
        InputError: its path is not UTF-8, which DVC's and MLflow's files have to be.
        AdapterBankError: the folder cannot be written, or DVC or Git refused.
    """
    check_utf8(str(directory.resolve()))
    _refuse_strangers(directory)
    changed: list[Path] = []
    with writable(directory):
        make_directory(directory)
        if git and not git_holds(directory):
            git_init(directory)
        # Before DVC is set up, so that it finds its outputs ignored and adds no files of its own.
        changed += [path for name in _LISTS if _add_lines(path := directory / name, _LISTS[name])]
        changed += ensure_dvc(directory, git=git)
        for name, template in _FILES.items():
            path = directory / name
            if not path.exists():
                make_directory(path.parent)
                replace_file(path, _template(template) if template else b"")
                changed.append(path)
        if git:
            install_merge_driver(directory)
    return list(dict.fromkeys(changed))


def install_merge_driver(root: Path) -> bool:
    """Let Git merge alias files by ``adapterbank merge-aliases``; return whether that is new.

    Git keeps this in the repository's own configuration, which no clone has. Nothing is done where
    no ``.gitattributes`` of the bank asks for it.
    """
    attributes = root / ".gitattributes"
    if not attributes.is_file() or _DRIVER not in _text(attributes):
        return False
    # -P: Git runs it at the top of the working tree, whose files are no modules of ours.
    command = f"{shlex.quote(sys.executable)} -P -m adapterbank merge-aliases --driver %O %A %B %P"
    return git_merge_driver(root, _DRIVER, "alias files of adapterbank", command)


def _refuse_strangers(directory: Path) -> None:
    """Raise if a name of the bank is taken by something else; all of them are named."""
    if directory.exists() and not directory.is_dir():
        raise ConflictError(f"{directory} is a file, not a folder")
    checks: Mapping[str, Callable[[str], bool]] = {
        "pipelines/params.yaml": _is_params,
        "dvc.yaml": lambda text: PIPELINE_MARK in text,
    }
    taken = []
    for name in (*_FILES, *_LISTS, "registry", "pipelines", "registry/adapters"):
        path = directory / name
        folder = name in {"registry", "pipelines", "registry/adapters"}
        if path.exists() and path.is_dir() != folder:
            taken.append(f"{path} is a {'file' if folder else 'folder'}")
        elif name in checks and path.is_file() and not checks[name](_text(path)):
            taken.append(f"{path} is not a bank's")
    if taken:
        raise ConflictError(
            f"{'; '.join(taken)}. Nothing was written",
            fix="choose another folder, or move these files away",
        )


def _is_params(text: str) -> bool:
    try:
        content = read_mapping(text, "params.yaml")
    except ConfigError:
        return False
    return {"profiles", "tasks"} <= content.keys()


def _add_lines(path: Path, template: str) -> bool:
    """Add what is missing of a template's lines; return whether anything was."""
    present = _text(path) if path.is_file() else ""
    if not present:
        replace_file(path, _template(template))
        return True
    wanted = _template(template).decode().splitlines()
    lines = {"", *present.splitlines()}
    missing = [line for line in wanted if line not in lines and not line.startswith("#")]
    if missing:
        gap = "" if present.endswith("\n") else "\n"
        added = "\n".join(["", "# adapterbank", *missing, ""])
        replace_file(path, f"{present}{gap}{added}".encode())
    return bool(missing)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def _template(name: str) -> bytes:
    return resources.files("adapterbank.bank").joinpath("templates", name).read_bytes()
