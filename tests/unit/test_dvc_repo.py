"""What DVC does to versions that were registered by hand."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapterbank.errors import AdapterBankError, IntegrityError
from adapterbank.integrations.dvc import repo
from adapterbank.integrations.dvc.objects import locked_outputs
from adapterbank.integrations.environment import DEFAULTS
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from tests.registry_samples import files_of, new_registry

STAGE, OUTPUT = "register@dtd", "registry/adapters/dtd"
PIPELINE = """\
stages:
  register:
    foreach: [dtd]
    do:
      cmd: "true"
      deps: [new]
      outs:
        - registry/adapters/${item}: {persist: true}
"""


def dvc(root: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=root, env={**os.environ, **DEFAULTS}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bank whose register stage has run, for one version."""
    root = tmp_path_factory.mktemp("built") / "bank"
    new_registry(root / "registry").register("dtd", files_of("dtd", 0))
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "new").write_text("what is to be registered")
    repo.ensure_dvc(root, git=False)
    dvc(root, "repro")
    return root


@pytest.fixture
def bank(built: Path, tmp_path: Path) -> Path:
    """Return a bank of the test's own, with a second version that was registered by hand."""
    root = tmp_path / "bank"
    shutil.copytree(built, root)
    Registry.open(root / "registry").register("dtd", files_of("dtd", 1))
    return root


def versions(bank: Path) -> tuple[Version, ...]:
    return Registry.open(bank / "registry").versions("dtd")


def mend(bank: Path, version: Version) -> None:
    """Do what the registry says mends a version."""
    registry = Registry.open(bank / "registry")
    with pytest.raises(IntegrityError) as caught:
        registry.read(version)
    assert caught.value.fix is not None
    here = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in caught.value.fix.split(" && "):
        subprocess.run(
            shlex.split(command), cwd=bank, env={**os.environ, **DEFAULTS, **here}, check=True
        )
    registry.read(version)


@pytest.mark.parametrize("damage", ["altered", "extra", "gone", "link"])
def test_mending_a_version_leaves_those_that_dvc_does_not_know(bank: Path, damage: str) -> None:
    first, by_hand = versions(bank)
    if damage == "altered":
        (first.path / "metrics.json").write_text("{}")
    elif damage == "extra":
        (first.path / "metrics.txt").write_text("{}")
    else:
        shutil.rmtree(first.path)
    if damage == "link":
        first.path.symlink_to(by_hand.path)
    mend(bank, first)
    Registry.open(bank / "registry").read(by_hand)


def test_a_version_registered_by_hand_is_kept_by_dvc_once_it_is_told(bank: Path) -> None:
    by_hand = versions(bank)[1]
    assert repo.keep_output(bank, STAGE, OUTPUT) is None
    assert dvc(bank, "status", STAGE, "--json").strip() == "{}"
    (by_hand.path / "metrics.json").write_text("{}")
    mend(bank, by_hand)
    assert repo.keep_output(bank, STAGE, OUTPUT) is None  # nothing to do


@pytest.mark.parametrize("ran", [False, True], ids=["never ran", "ran before"])
def test_a_stage_that_has_yet_to_run_is_not_marked_as_done(bank: Path, ran: bool) -> None:
    if ran:
        (bank / "new").write_text("trained since")
    else:
        (bank / "dvc.lock").unlink()
    reason = repo.keep_output(bank, STAGE, OUTPUT)
    assert reason is not None
    assert "dvc repro" in reason
    assert dvc(bank, "status", STAGE, "--json").strip() != "{}"


def test_what_dvc_says_is_the_reason_where_it_has_no_such_stage(bank: Path) -> None:
    reason = repo.keep_output(bank, "register@tints", "registry/adapters/tints")
    assert reason is not None
    assert "register@tints" in reason


def test_a_bank_without_a_pipeline_says_so(tmp_path: Path) -> None:
    assert repo.keep_output(tmp_path, STAGE, OUTPUT) == f"{tmp_path} has no dvc.yaml"


LOCKS = {
    "list": b"[]",
    "text": b"x",
    "stages-a-list": b"stages: [1]",
    "stage-a-text": b"stages: {a: x}",
    "outs-of-texts": b"stages: {a: {outs: [x]}}",
    "date": b"stages: {a: {day: 2026-02-30, outs: [{path: p, md5: m}]}}",
    "no-path": b"stages: {a: {outs: [{md5: m}]}}",
    "path-a-list": b"stages: {a: {outs: [{path: [p], md5: m}]}}",
    "deep": b"[" * 100_000,
    "broken": b"stages: {",
    "latin": b"stages: {a: \xe9}",
}


@pytest.mark.parametrize("content", LOCKS.values(), ids=LOCKS)
def test_a_lock_file_that_is_none_is_told_with_what_brings_it_back(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "dvc.lock"
    path.write_bytes(content)
    try:
        found = locked_outputs(path)
    except AdapterBankError as error:
        assert error.fix == "git checkout HEAD -- dvc.lock"  # noqa: PT017  # some of them say nothing wrong
    else:
        assert found in ({}, {"p": "m"}, {"['p']": "m"})


def test_stages_that_this_program_runs_are_told_of_no_other_bank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERBANK_BANK", "/another")
    (tmp_path / "dvc.yaml").write_text(
        "stages: {look: {cmd: 'test -z \"$ADAPTERBANK_BANK\" && touch seen', outs: [seen]}}\n"
    )
    repo.ensure_dvc(tmp_path, git=False)
    repo.repro(tmp_path, quiet=True)
    assert (tmp_path / "seen").exists()
