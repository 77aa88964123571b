"""A tiny bank, built once by the real stages: two versions of one task, the first is champion."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from adapterbank.__main__ import main
from adapterbank.continual.bank import Bank
from adapterbank.continual.stages import prepare
from tests.cli_samples import COLOURS, PARAMS, Cli, Ran, draw
from tests.search_trials import TASK, configure, searched


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished bank that nobody changes."""
    root = tmp_path_factory.mktemp("built") / "bank"
    params = root / "pipelines" / "params.yaml"
    params.parent.mkdir(parents=True)
    params.write_text(PARAMS)
    (root / "registry").mkdir()
    for index, (name, colour) in enumerate(COLOURS.items()):
        for number in range(12):
            draw(root / "photos" / name / f"{number:02}.png", colour, 100 * index + number)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        steps = ["train colours", "evaluate colours --trained", "register work/colours/version"]
        for step in [*steps, "promote colours@1 --expected none"]:
            assert main(step.split()) == 0, step
        params.write_text(PARAMS.replace("seed: 1", "seed: 2"))
        for step in steps:
            assert main(step.split()) == 0, step
        params.write_text(PARAMS)
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
