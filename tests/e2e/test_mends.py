"""What an error says mends it does: a fault is made, the advice followed, the command works."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapterbank.bank.keep import keep_versions
from adapterbank.integrations.dvc.objects import DvcObjects
from adapterbank.integrations.dvc.repo import ensure_dvc
from adapterbank.registry.store import Registry
from tests.bank_samples import damage
from tests.cli_samples import Cli
from tests.dvc_samples import commit, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ALIASES = "registry/aliases/colours.json"
WEIGHTS = "registry/backbone/model.safetensors"
PICTURE = "photos/green/00.png"
_EXPLAINED = re.compile(r"(, (?:which|or|and|in|if|for)\b|; ).*")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault, and a command that meets it."""

    fault: Callable[[Path], object]
    command: str
    mended: str | None = None  # what works afterwards, where it is not the command itself


def first(bank: Path) -> Path:
    return Registry.open(bank / "registry").versions("colours")[0].path


def emptied(bank: Path) -> None:
    for path in bank.glob("mlflow.db*"):
        path.unlink()


def linked(bank: Path) -> None:
    (bank / "registry/aliases").rename(bank / "elsewhere")
    (bank / "registry/aliases").symlink_to(bank / "elsewhere")


def marked(bank: Path) -> None:
    """Leave the marks of a conflict that says nothing different."""
    text = (bank / ALIASES).read_text()
    (bank / ALIASES).write_text(text.replace("{\n", "<<<<<<< a\n{\n=======\n{\n>>>>>>> b\n", 1))


CASES = {
    "an alias file is damaged": Case(
        fault=lambda bank: (bank / ALIASES).write_text("{}"), command="show colours"
    ),
    "an alias file is missing": Case(
        fault=lambda bank: (bank / ALIASES).unlink(), command="show colours", mended="list"
    ),
    "an alias file has marks of a conflict": Case(fault=marked, command="show colours"),
    "the alias files are elsewhere": Case(fault=linked, command="show colours"),
    "the record of the backbone is damaged": Case(
        fault=lambda bank: (bank / "registry/backbone.json").write_text("[]"),
        command=f"predict --task colours {PICTURE}",
    ),
    "the backbone is missing": Case(
        fault=lambda bank: (bank / WEIGHTS).unlink(), command=f"predict --task colours {PICTURE}"
    ),
    "the backbone is damaged": Case(
        fault=lambda bank: damage(bank / WEIGHTS), command=f"predict --task colours {PICTURE}"
    ),
    "a version is damaged": Case(
        fault=lambda bank: damage(first(bank) / "adapter_model.safetensors"),
        command="show colours@1",
    ),
    "a version is not here": Case(
        fault=lambda bank: shutil.rmtree(first(bank)), command="show colours@1"
    ),
    "no such task": Case(fault=Path.exists, command="show colors", mended="list"),
    "no such alias": Case(fault=Path.exists, command="show colours@challenger"),
    "an alias that nobody can move": Case(
        fault=Path.exists, command="show colours@latest", mended="show colours@2"
    ),
    "an alias that moves by itself": Case(
        fault=Path.exists, command="show colours@previous", mended="show colours@2"
    ),
    "no such version": Case(fault=Path.exists, command="show colours@9", mended="show colours@2"),
    "a task that was removed": Case(
        fault=lambda bank: Registry.open(bank / "registry").retire("colours"),
        command="show colours",
    ),
    "an alias of a removed task that nobody can move": Case(
        fault=lambda bank: Registry.open(bank / "registry").retire("colours"),
        command="show colours@previous",
        mended="show colours@2",
    ),
    "the variable means another bank": Case(
        fault=lambda _: os.environ.__setitem__("ADAPTERBANK_BANK", "/"),
        command="stage prepare colours",
    ),
    "the catalogue of MLflow is gone": Case(fault=emptied, command="status", mended="sync"),
}


@pytest.fixture(scope="module")
def kept(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the built bank under Git and DVC, which keeps its versions."""
    root = tmp_path_factory.mktemp("kept") / "bank"
    shutil.copytree(built, root)
    run(root, "git", "init", "--quiet")
    ignored = "/registry/adapters/*/\n/registry/backbone/\n/work/\n/mlflow.db*\n/mlartifacts/\n"
    (root / ".gitignore").write_text(ignored)
    ensure_dvc(root, git=True)
    assert keep_versions(Registry.open(root / "registry"), "colours") is None
    with DvcObjects(root) as objects:
        objects.keep("backbone", "registry/backbone", [root / "registry/backbone"], anew=True)
    commit(root)
    return root


@pytest.fixture
def own(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "own"
    shutil.copytree(kept, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("ADAPTERBANK_BANK", "")
    return root


def follow(advice: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what a message says, without what it says about it."""
    for command in _EXPLAINED.sub("", advice).split(" && "):
        words = shlex.split(command)
        if words[0] == "unset":
            monkeypatch.delenv(words[1])
        elif words[0] == "adapterbank":
            ran = cli(*words[1:])
            assert ran.code == 0, ran.err
        else:
            subprocess.run(words, check=True, capture_output=True)


def advised(ran_err: str, ran_out: str) -> str:
    """Return what the program says mends the fault, in JSON."""
    try:
        fix = json.loads(ran_err)["fix"]
    except ValueError:
        fix = json.loads(ran_out)["discrepancies"][0]["fix"]
    return str(fix)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_is_said_to_mend_a_fault_does(
    own: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    case.fault(own)
    ran = cli(*case.command.split(), "--json")
    assert ran.code not in {0, 70}
    follow(advised(ran.err, ran.out), cli, monkeypatch)
    ran = cli(*(case.mended or case.command).split(), "--json")
    assert ran.code == 0, ran.err
