"""A tiny bank, built once by the real stages: two versions of one task, the first is champion."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from adapterbank.__main__ import main
from adapterbank.bank.bank import Bank
from adapterbank.pipeline.prepare import prepare
from tests.cli_samples import Cli, Ran
from tests.search_trials import TASK, configure, searched
from tests.trained_bank import train_bank


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished bank that nobody changes."""
    root = tmp_path_factory.mktemp("built") / "bank"
    train_bank(root)
    return root


@pytest.fixture
def bank(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a bank of the test's own, and stand in it."""
    root = tmp_path / "bank"
    shutil.copytree(built, root)
    monkeypatch.chdir(root)
    monkeypatch.delenv("ADAPTERBANK_BANK", raising=False)
    return root


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return a function that runs the program in this process."""
    capsys.readouterr()  # what a fixture printed is no test's

    def run(*words: str | Path, stdin: str = "") -> Ran:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def searching(bank: Path) -> Bank:
    """Return a bank whose profile searches and whose task is prepared."""
    opened = configure(bank, searched())
    prepare(opened, TASK)
    return opened
