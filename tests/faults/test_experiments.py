"""DVC's experiments, worktrees and link types, in a bank that is a folder of somebody's project."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from adapterbank.__main__ import main
from adapterbank.bank.scaffold import init_bank
from adapterbank.config.params_file import add_task
from adapterbank.integrations.dvc.repo import repro
from adapterbank.registry.store import Registry
from tests.dvc_samples import commit, dvc, run
from tests.learning import ENTRIES, new_bank

CHANGE = "pipelines/params.yaml:tasks.reds.method"
LINKS = ("symlink", "hardlink")  # copies are what all other tests have


@pytest.fixture(params=LINKS)
def bank(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a committed bank of one task in a repository that ignores ``*.json``."""
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", here)
    monkeypatch.delenv("ADAPTERBANK_BANK", raising=False)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "a test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@example.org")
    project = tmp_path / "project"
    project.mkdir()
    run(project, "git", "init", "--quiet")
    (project / ".gitignore").write_text("*.json\n")
    root = project / "bank"
    new_bank(root)
    params = root / "pipelines/params.yaml"
    line = "    train: {epochs: 1, batch_size: 8}\n"
    text = params.read_text().replace(line, f"{line}    search: null\n")
    params.write_text(
        f"gates: {{min_accuracy: 0.0}}\nrouter: {{blocks: null}}\nspaces: {{}}\n{text}"
    )
    init_bank(root)
    dvc(root, "config", "cache.type", request.param)
    dvc(root, "config", "cache.dir", str(tmp_path / "shared"))
    first = ENTRIES[0]
    add_task(root, first["task"], {key: first[key] for key in first if key != "task"})
    repro(root, quiet=True)
    commit(project)
    return root


def versions(bank: Path) -> int:
    return len(Registry.open(bank / "registry").versions("reds"))


def sound(bank: Path) -> bool:
    """Return whether the bank's versions are whole, and everything agrees."""
    codes = [main([command, "--bank", str(bank)]) for command in ("verify", "status")]
    return codes == [0, 0]


@pytest.mark.timeout(1800)  # DVC starts a process for each stage
def test_experiments_and_worktrees_leave_a_bank_that_agrees(bank: Path, tmp_path: Path) -> None:
    assert sound(bank)

    dvc(bank, "exp", "run", "--quiet", "--set-param", f"{CHANGE}=vpt_shallow")
    assert versions(bank) == 2
    commit(bank.parent)
    assert sound(bank)

    dvc(bank, "exp", "run", "--quiet", "--temp", "--set-param", f"{CHANGE}=vapt")
    assert versions(bank) == 2
    assert sound(bank)

    tree = tmp_path / "tree"
    run(bank.parent, "git", "worktree", "add", "--quiet", str(tree), "-b", "side")
    assert main(["verify", "--bank", str(tree / "bank")]) == 4
    assert main(["pull", "--bank", str(tree / "bank")]) == 0  # of the cache that both share
    assert main(["verify", "--bank", str(tree / "bank")]) == 0
    dvc(tree / "bank", "repro", "--quiet")
    assert versions(tree / "bank") == 2
