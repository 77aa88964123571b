"""Commands that only look at a bank leave the disk as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbank.bank.bank import Bank
from adapterbank.config.bank import PARAMS
from tests.cli_samples import Cli
from tests.registry_samples import BACKBONE

TASKS = "profile: p\nprofiles: {p: {}}\ntasks: {pets: {data: photos}}\n"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Return a bank that is nothing but its configuration."""
    (tmp_path / PARAMS).parent.mkdir()
    (tmp_path / PARAMS).write_text(TASKS)
    return tmp_path


@pytest.mark.parametrize(
    "words", [["task", "list"], ["task", "show", "pets"], ["gc", "--dry-run"]], ids=" ".join
)
def test_a_command_that_only_looks_makes_no_registry(
    bare: Path, cli: Cli, words: list[str]
) -> None:
    ran = cli(*words, "--bank", bare)
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in bare.rglob("*")) == ["params.yaml", "pipelines"]


def test_the_first_write_makes_the_registry(bare: Path) -> None:
    bank = Bank.open(bare)
    assert bank.registry.tasks() == ()
    bank.registry.set_backbone(BACKBONE)
    assert Bank.open(bare).registry.backbone() == BACKBONE
