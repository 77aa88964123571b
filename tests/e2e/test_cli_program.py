"""The program itself: how it starts, and how it ends when something is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapterbank import __version__
from adapterbank.__main__ import main
from tests.cli_samples import Cli

HEAVY = frozenset(
    ("torch", "timm", "torchvision", "numpy", "mlflow", "dvc", "ray", "ruamel", "yaml", "sklearn",
     "matplotlib", "peft", "onnx", "skimage")
)  # fmt: skip


def loaded(*words: str, cwd: Path | None = None) -> set[str]:
    """Run a command in a fresh interpreter and return the top-level modules it has loaded."""
    code = (
        "import sys; from adapterbank.__main__ import main; code = main(sys.argv[1:]);"
        "print('\\n' + ' '.join({name.split('.')[0] for name in sys.modules}));"
        "sys.exit(code)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, cwd=cwd
    )
    return set(finished.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("words", [["--help"], ["predict", "--help"], ["--version"]])
def test_help_loads_no_heavy_library(words: list[str]) -> None:
    assert sorted(loaded(*words) & HEAVY) == []


def test_the_list_of_commands_does_not_even_load_pydantic() -> None:
    assert "pydantic" not in loaded("--help")


def test_predict_loads_no_library_it_does_not_need(built: Path) -> None:
    image = next((built / "photos").rglob("*.png"))
    names = loaded("predict", "--task", "colours", str(image), cwd=built)
    assert "torch" in names
    unneeded = {"mlflow", "dvc", "ray", "sklearn", "matplotlib", "peft", "onnx", "skimage"}
    assert sorted(names & unneeded) == []


@pytest.mark.parametrize("words", [["list"], ["show", "colours"], ["history", "colours"]])
def test_what_only_reads_the_registry_needs_no_torch(built: Path, words: list[str]) -> None:
    assert sorted(loaded(*words, cwd=built) & {"torch", "timm", "mlflow", "dvc", "ray"}) == []


def test_version_is_printed(cli: Cli) -> None:
    ran = cli("--version")
    assert (ran.code, ran.out) == (0, f"adapterbank {__version__}\n")


@pytest.mark.parametrize(
    "words",
    [
        ["predikt"],
        ["predict"],
        ["predict", "--task", "colours", "--top-k", "0", "x.png"],
        ["promote", "colours@2", "--expected", "soon"],
        ["task", "add", "Bad Name", "--data", "photos"],
        ["task", "add", "new", "--data", "photos", "--hyper", "prompts"],
        ["show", "colours@@2"],
        ["stage", "train"],
        ["stage", "release", "colours"],
        ["list", "--bank", "nowhere"],
    ],
    ids=" ".join,
)
def test_a_usage_error_ends_with_2(bank: Path, cli: Cli, words: list[str]) -> None:
    assert bank.is_dir()
    ran = cli(*words)
    assert ran.code == 2
    assert ran.out == ""
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("meant", ["another", "/nowhere", "", "photos", "."])
def test_a_stage_is_of_the_bank_it_runs_in_whatever_the_variable_says(
    built: Path, bank: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, meant: str
) -> None:
    shutil.rmtree(bank / "work/colours/data")
    monkeypatch.setenv("ADAPTERBANK_BANK", str(built) if meant == "another" else meant)
    ran = cli("stage", "prepare", "colours")
    agrees = meant in {"", "photos", "."}
    assert ran.code == (0 if agrees else 2)
    assert (bank / "work/colours/data").exists() == agrees
    assert ("To mend it: unset ADAPTERBANK_BANK" in ran.err) != agrees


@pytest.mark.parametrize("words", [[], ["task"], ["backbone"]], ids=len)
def test_half_a_command_shows_what_can_follow(cli: Cli, words: list[str]) -> None:
    ran = cli(*words)
    assert ran.code == 2
    assert "Commands" in ran.out
    assert ran.err.strip() == ""


def test_outside_a_bank_the_mending_command_is_named(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli("list")
    assert ran.code == 2
    assert "To mend it: adapterbank init" in ran.err


@pytest.mark.parametrize(
    ("words", "code"),
    [(["show", "colors", "--json"], 3), (["show", "--json"], 2), (["show", "x@@", "--json"], 2)],
)
def test_an_error_with_json_is_one_object(
    bank: Path, cli: Cli, words: list[str], code: int
) -> None:
    assert bank.is_dir()
    ran = cli(*words)
    error = json.loads(ran.err)
    assert list(error) == ["error", "message", "fix", "exit_code"]
    assert (ran.code, error["exit_code"], ran.out) == (code, code, "")


def test_an_unknown_task_names_its_neighbours(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    ran = cli("predict", "--task", "colors", "photos")
    assert ran.code == 3
    assert "Did you mean 'colours'?" in ran.err


def test_the_bank_can_be_named_by_an_option_or_the_environment(
    built: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    by_option = cli("list", "--json", "--bank", built / "photos")
    monkeypatch.setenv("ADAPTERBANK_BANK", str(built))
    by_environment = cli("list", "--json")
    assert by_option == by_environment
    assert json.loads(by_option.out)["bank"] == str(built)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, ""),
        (ZeroDivisionError("seven"), 70, "Internal error: ZeroDivisionError: seven"),
        (PermissionError(13, "Permission denied", "registry"), 1, "registry: Permission denied"),
    ],
    ids=["interrupt", "bug", "disk"],
)
def test_what_nobody_foresaw_ends_without_a_traceback(
    bank: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int,
    message: str,
) -> None:  # fmt: skip
    def fail(_path: object) -> None:
        raise error

    assert bank.is_dir()
    monkeypatch.setattr("adapterbank.registry.store.Registry.open", fail)
    ran = cli("list")
    assert ran.code == code
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_a_traceback_is_there_for_those_who_ask(
    bank: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: object) -> None:
        raise ZeroDivisionError

    assert bank.is_dir()
    monkeypatch.setattr("adapterbank.registry.store.Registry.open", fail)
    monkeypatch.setenv("ADAPTERBANK_DEBUG", "1")
    ran = cli("list")
    assert ran.code == 70
    assert "Traceback" in ran.err


@pytest.mark.parametrize("words", ["show colours --json", "list", "--version"])
def test_a_reader_that_stops_reading_is_no_error(built: Path, words: str) -> None:
    """However much there is to read: little is only written at the end, in one piece."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-m", "adapterbank", *words.split()],
        cwd=built, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (141, "")


def test_the_program_is_a_function_of_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert main(["nonsense"]) == 2
    assert "No such command 'nonsense'" in capsys.readouterr().err
