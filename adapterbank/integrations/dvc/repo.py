"""Setting DVC up in a bank, and running its pipeline, by DVC's command line."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from adapterbank.durable import replace_file
from adapterbank.errors import AdapterBankError
from adapterbank.integrations.environment import DEFAULTS
from adapterbank.integrations.git import git_toplevel
from adapterbank.records import BANK_VARIABLE

_GITIGNORE: Final = b"/config.local\n/tmp\n/cache\n"


def ensure_dvc(root: Path, *, git: bool) -> tuple[Path, ...]:
    """Make ``root`` a DVC repository with analytics off, or complete one that is unfinished.

    Args:
        root: the bank.
        git: whether DVC is to work with Git. ``root`` may be a sub-folder of a working tree.

    Returns:
        The files that were made or changed; none on a second call.

    Raises:
        AdapterBankError: DVC refused; its reason is in the message.
    """
    files = (root / ".dvc" / "config", root / ".dvc" / ".gitignore", root / ".dvcignore")
    before = {path: path.read_bytes() if path.is_file() else None for path in files}
    if not (root / ".dvc").is_dir():
        at_top = git and git_toplevel(root) == root.resolve()
        options = [] if at_top else ["--subdir" if git else "--no-scm"]
        _dvc(root, "init", "--quiet", *options)
    if not files[0].is_file():  # left by a `dvc init` that was killed
        replace_file(files[0], b"")
    if git and not files[1].is_file():
        replace_file(files[1], _GITIGNORE)
    settings = _core_settings(files[0])
    if settings.get("analytics", "").lower() != "false":
        _dvc(root, "config", "core.analytics", "false")
    # A bank made without Git may have been put under it since, or the other way round.
    if (settings.get("no_scm", "false").lower() == "true") == git:
        _dvc(root, "config", "core.no_scm", str(not git).lower())
    return tuple(path for path in files if path.is_file() and path.read_bytes() != before[path])


def repro(root: Path, targets: Sequence[str] = (), *, quiet: bool = False) -> None:
    """Bring the pipeline, or some of its stages, up to date; the stages' own output is shown.

    Args:
        root: the bank.
        targets: stages such as ``train@dtd``, with all they need; empty means everything.
        quiet: hide DVC's own lines, and with them its reason for a failure.

    Raises:
        AdapterBankError: a stage failed, or DVC was busy; what it said was shown.
    """
    words = ["repro", *(["--quiet"] if quiet else []), "--", *targets]
    ran = subprocess.run(  # noqa: S603  # DVC of this environment, stage names
        [sys.executable, "-m", "dvc", *words], cwd=root, env=_environment(), check=False
    )
    if ran.returncode != 0:
        raise AdapterBankError(
            f"dvc repro {' '.join(targets)} stopped with exit code {ran.returncode}",
            fix="mend what its output names, then run it again: finished stages are kept",
        )


def _core_settings(config: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read_string(config.read_text(encoding="utf-8"))
    except configparser.Error as error:
        raise AdapterBankError(f"{config} cannot be read: {error}") from error
    return dict(parser["core"]) if parser.has_section("core") else {}


def _environment() -> dict[str, str]:
    # Stage commands call `adapterbank`, which stands beside this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    # Which bank was meant is decided: a stage's own is the one that DVC runs it in.
    inherited = {name: value for name, value in os.environ.items() if name != BANK_VARIABLE}
    return {**DEFAULTS, **inherited, "PATH": path}


def _dvc(root: Path, *words: str) -> str:
    ran = subprocess.run(  # noqa: S603  # DVC of this environment, fixed words
        [sys.executable, "-m", "dvc", *words],
        cwd=root,
        env=_environment(),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if ran.returncode != 0:
        reason = ran.stderr.strip() or ran.stdout.strip() or f"exit code {ran.returncode}"
        raise AdapterBankError(f"dvc {' '.join(words)} failed in {root}: {reason}")
    return ran.stdout
