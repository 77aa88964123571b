"""A small bank under real Git and DVC, with a folder for a remote; nothing in it was trained."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from adapterbank.bank.scaffold import init_bank
from adapterbank.integrations.environment import DEFAULTS
from adapterbank.registry.store import Registry
from tests.registry_samples import files_of, new_registry

# The stages' names and outputs are those of every bank; what they do was done by hand.
_PIPELINE = """\
# adapterbank pipeline, layout 1
stages:
  backbone:
    cmd: 'true'
    outs: [registry/backbone: {persist: true}]
  register:
    foreach: [digits, textures]
    do:
      cmd: 'true'
      outs: ["registry/adapters/${item}": {persist: true}]
"""


def run(root: Path, *words: str) -> str:
    """Run a program in a folder and return what it says."""
    inherited = {name: os.environ[name] for name in os.environ if not name.startswith("GIT_")}
    identity = {
        f"GIT_{who}_{what}": f"{what}@example.org".lower()
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    done = subprocess.run(
        words, cwd=root, env={**inherited, **DEFAULTS, **identity},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dvc(root: Path, *words: str) -> str:
    """Run DVC in a folder."""
    return run(root, sys.executable, "-m", "dvc", *words)


def fill_registry(root: Path) -> Registry:
    """Make two versions of ``digits`` and one of ``textures``, which answer nothing."""
    registry = new_registry(root)
    for task, seed in (("digits", 1), ("digits", 2), ("textures", 3)):
        registry.register(task, files_of(task, seed), actor="a test")
    registry.promote("digits@2", expected=None, actor="a test")
    return registry


def make_dvc_bank(root: Path, fill: Callable[[Path], Registry] = fill_registry) -> Registry:
    """Make a committed bank of the tasks ``digits`` and ``textures``, with an empty remote."""
    init_bank(root)
    (root / "dvc.yaml").write_text(_PIPELINE)
    registry = fill(root / "registry")
    dvc(root, "remote", "add", "--default", "store", "../store")  # moves with the bank
    dvc(root, "repro", "--quiet")
    commit(root)
    return registry


def commit(root: Path) -> None:
    """Commit everything that Git does not ignore."""
    run(root, "git", "add", "--all")
    run(root, "git", "commit", "--quiet", "--message", "a bank")


def clone(root: Path, target: Path) -> Registry:
    """Clone a bank by Git, without any of DVC's bytes."""
    run(root.parent, "git", "clone", "--quiet", str(root), str(target))
    return Registry.open(target / "registry")


def copy(root: Path, target: Path) -> Registry:
    """Copy a bank with all its bytes, its remote beside it."""
    shutil.copytree(root.parent, target, symlinks=True)
    return Registry.open(target / root.name / "registry")
