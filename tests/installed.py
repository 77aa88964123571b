"""Another process, which has the package installed as pyproject.toml says."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from adapterbank.integrations.environment import DEFAULTS
from tests.source import ROOT

ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]


def run_installed(
    script: str, *words: str | Path, folder: Path, tracking: str, installed: Path
) -> str:
    """Run a script in another process and return what it says.

    Args:
        script: Python.
        words: its arguments.
        folder: where it stands.
        tracking: MLflow's address.
        installed: a folder that does not exist yet.
    """
    environment = {
        **os.environ, **DEFAULTS,
        "MLFLOW_TRACKING_URI": tracking,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{_install(installed)}",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _install(folder: Path) -> Path:
    """Say what an installation of the package says of its entry points, as pyproject.toml has it.

    The environment of the tests may have been made before an entry point was added.
    """
    info = folder / "adapterbank_of_a_test-1.0.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text("Name: adapterbank-of-a-test\nVersion: 1.0\n")
    lines = [
        line
        for group, points in ENTRY_POINTS.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    info.joinpath("entry_points.txt").write_text("\n".join(lines))
    return folder
