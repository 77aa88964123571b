"""A bank that an earlier program made opens, answers, releases and grows, training nothing anew."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterbank.__main__ import main
from adapterbank.integrations.environment import DEFAULTS
from tests.cli_samples import COLOURS, draw

Program = Callable[..., str]

DATA = Path(__file__).parents[1] / "data"
GREYS = {"dark": (40, 40, 40), "light": (220, 220, 220)}
ANSWERS: list[dict[str, Any]] = json.loads((DATA / "earlier_bank.json").read_text())


def run(root: Path, *words: str) -> str:
    """Run a program of this environment in a bank; return what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        words, cwd=root, env={**DEFAULTS, **variables, "PATH": path}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def adapterbank(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Program:
    """Return a function that runs the program in a bank, in this process."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def program(root: Path, *words: str) -> str:
        monkeypatch.chdir(root)
        capsys.readouterr()
        code = main(list(words))
        out, err = capsys.readouterr()
        assert code == 0, out + err
        return out

    return program


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the bank and draw its images."""
    root = tmp_path_factory.mktemp("earlier") / "bank"
    with tarfile.open(DATA / "earlier_bank.tar.xz") as archive:
        # Python 3.11.2 has no filters, 3.12 warns without one; the archive is our own.
        safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(root, **safely)  # noqa: S202
    for folder, colours, first, count in (("photos", COLOURS, 0, 16), ("greys", GREYS, 1000, 24)):
        for index, (name, colour) in enumerate(colours.items()):
            for number in range(count):
                draw(root / folder / name / f"{number:02}.png", colour,
                     first + 100 * index + number)  # fmt: skip
    identity = ("-c", "user.name=a test", "-c", "user.email=a@test")
    run(root, "git", "init", "--quiet")
    run(root, "git", "add", "--all")
    run(root, "git", *identity, "commit", "--quiet", "--message", "A bank")
    return root


@pytest.fixture
def own(bank: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may change."""
    root = tmp_path / "bank"
    shutil.copytree(bank, root)
    return root


def test_it_verifies(adapterbank: Program, bank: Path) -> None:
    adapterbank(bank, "verify")


def test_nothing_of_it_was_forgotten(adapterbank: Program, bank: Path) -> None:
    adapterbank(bank, "audit")


@pytest.mark.parametrize("asked", sorted({answer["asked"] for answer in ANSWERS}))
def test_it_answers_as_it_did(adapterbank: Program, bank: Path, asked: str) -> None:
    before = [answer for answer in ANSWERS if answer["asked"] == asked]
    text = adapterbank(bank, "predict", "--task", asked, *(a["image"] for a in before), "--json")
    now = [json.loads(line) for line in text.splitlines()]

    exact = ("task", "version", "digest", "label")
    assert [[a[key] for key in exact] for a in now] == [[a[key] for key in exact] for a in before]
    # Single precision, on another processor.
    assert [answer["probability"] for answer in now] == pytest.approx(
        [answer["probability"] for answer in before], abs=1e-5
    )
    assert [answer["route"]["p_value"] for answer in now if "route" in answer] == [
        answer["p_value"] for answer in before if "p_value" in answer
    ]


def test_a_release_moves_nothing(adapterbank: Program, own: Path) -> None:
    aliases = {path.name: path.read_bytes() for path in (own / "registry/aliases").iterdir()}
    adapterbank(own, "stage", "release")
    assert aliases == {
        path.name: path.read_bytes() for path in (own / "registry/aliases").iterdir()
    }


def test_nothing_of_it_is_stale(own: Path) -> None:
    assert "Running stage" not in run(own, sys.executable, "-m", "dvc", "repro")


@pytest.mark.slow
def test_a_new_task_runs_its_own_branch_alone(adapterbank: Program, own: Path) -> None:
    versions = {path.name for path in (own / "registry/adapters").glob("*/*")}
    adapterbank(own, "task", "add", "shades", "--data", "greys")

    text = run(own, sys.executable, "-m", "dvc", "repro")

    started = [line.split("'")[1] for line in text.splitlines() if line.startswith("Running stage")]
    assert sorted(started) == sorted([
        *(f"{stage}@shades" for stage in ("prepare", "tune", "train", "evaluate", "register")),
        "release",
    ])  # fmt: skip
    assert versions < {path.name for path in (own / "registry/adapters").glob("*/*")}
    adapterbank(own, "predict", "--task", "shades", "greys/dark/00.png")
