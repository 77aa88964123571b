"""``--device``: one option and one default for every command that runs the backbone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli_samples import Cli

COMMANDS = {
    "audit": ["audit"],
    "demo": ["demo"],
    "drift": ["drift", "colours", "photos"],
    "evaluate": ["evaluate", "colours@1"],
    "promote": ["promote", "colours@1"],
    "release": ["stage", "release"],
    "report": ["report"],
}
"""Commands that read the configuration, whose default is the bank's."""


@pytest.mark.parametrize(
    "words", [*COMMANDS.values(), ["predict", "--task", "colours", "photos"]], ids=lambda w: w[0]
)
def test_an_unknown_device_is_a_usage_error(bank: Path, cli: Cli, words: list[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in bank.rglob("*")}
    ran = cli(*words, "--device", "gpu")
    assert (ran.code, ran.out) == (2, "")
    assert "'gpu': expected auto, cpu, cuda or cuda:N" in ran.err
    assert {path: path.stat().st_mtime_ns for path in bank.rglob("*")} == before


def give_device(bank: Path, name: str) -> None:
    """Write a device into the profile."""
    params = bank / "pipelines" / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("batch_size: 8}", f'batch_size: 8, device: "{name}"}}'))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_bank_s_device_is_the_default(bank: Path, cli: Cli, command: str) -> None:
    give_device(bank, "cuda:999")
    ran = cli(*COMMANDS[command])
    assert ran.code == 2, ran.err
    assert "'cuda:999': this machine has" in ran.err


@pytest.mark.parametrize("command", ["audit", "evaluate", "promote"])
def test_a_device_that_is_named_wins_over_the_bank_s(bank: Path, cli: Cli, command: str) -> None:
    give_device(bank, "cuda:999")
    ran = cli(*COMMANDS[command], "--device", "cpu")
    assert ran.code == 0, ran.err


def test_predicting_does_not_ask_the_bank_for_its_device(bank: Path, cli: Cli) -> None:
    give_device(bank, "cuda:999")
    assert cli("predict", "--task", "colours", "photos/blue/00.png").code == 0


def test_an_audit_says_where_it_replayed_and_what_was_allowed(bank: Path, cli: Cli) -> None:
    assert cli("audit", "--device", "cpu").code == 0
    report = json.loads((bank / "reports" / "audit.json").read_text())
    assert (report["device"], report["tolerance"]) == ("cpu", 1e-3)


@pytest.mark.parametrize("stage", ["prepare", "train", "evaluate", "register"])
def test_a_stage_of_a_task_takes_no_device(bank: Path, cli: Cli, stage: str) -> None:
    assert bank.is_dir()
    ran = cli("stage", stage, "colours", "--device", "cpu")
    assert ran.code == 2
    assert f"stage {stage} takes no --device: train.device of the task says where" in ran.err
