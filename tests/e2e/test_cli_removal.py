"""Commands that take something away: task remove and gc."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from adapterbank.bank.bank import Bank
from adapterbank.bank.remove_task import remove_task
from adapterbank.integrations.mlflow.mirror import lookup
from adapterbank.pipeline.release import release
from adapterbank.registry.store import Registry
from tests.cli_samples import PARAMS, Cli
from tests.mortal import survives

PARAMS_FILE = Path("pipelines/params.yaml")


def test_a_removed_task_is_built_and_answered_no_more(bank: Path, cli: Cli) -> None:
    ran = cli("task", "remove", "colours", "--reason", "sold", "--yes")
    assert ran.code == 0, ran.err
    assert "2 versions and their history are kept" in ran.out
    text = PARAMS_FILE.read_text()
    assert text.startswith(PARAMS.partition("tasks:")[0])
    assert "# Three plain colours." in text
    assert cli("task", "show", "colours").code == 3
    refused = cli("predict", "--task", "colours", bank / "photos" / "blue" / "00.png")
    assert refused.code == 3
    assert "sold" in refused.err
    assert "adapterbank promote colours@1" in refused.err
    assert Registry.open("registry").verify() == ()
    assert not lookup(bank, "colours").aliases


def test_a_removed_task_comes_back_by_promote(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    assert cli("task", "remove", "colours", "--yes").code == 0
    assert cli("promote", "colours@1").code == 0
    assert Registry.open("registry").resolve("colours").version == 1
    assert [alias for alias, _ in lookup(bank, "colours").aliases] == ["champion"]


def test_a_removed_task_is_not_released_again(bank: Path, cli: Cli) -> None:
    assert cli("task", "remove", "colours", "--yes").code == 0
    opened = Bank.open(bank)
    assert opened.data("colours").is_dir()  # so there would be something to judge it on
    (verdict,) = release(opened).verdicts
    assert (verdict.outcome, verdict.reason) == ("kept", "the task was removed")
    assert opened.registry.aliases("colours") == {}


def test_without_a_terminal_it_wants_to_be_told_yes(bank: Path, cli: Cli) -> None:
    before = (bank / PARAMS_FILE).read_bytes()
    ran = cli("task", "remove", "colours", stdin="y\n")
    assert ran.code == 2
    assert "--yes" in ran.err
    assert (bank / PARAMS_FILE).read_bytes() == before
    assert Registry.open("registry").aliases("colours") == {"champion": 1}


def test_an_unknown_task_is_not_removed(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    ran = cli("task", "remove", "colors", "--yes")
    assert ran.code == 3
    assert "colours" in ran.err


def test_a_second_removal_finds_nothing_to_do(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    assert cli("task", "remove", "colours", "--yes").code == 0
    ran = cli("task", "remove", "colours", "--yes", "--json")
    assert ran.code == 0
    assert json.loads(ran.out) == {
        "task": "colours", "configured": False, "aliases": {}, "versions": 2, "mirror": None,
    }  # fmt: skip
    assert "removed already" in cli("task", "remove", "colours", "--yes").out


def test_a_removal_killed_anywhere_is_finished_by_the_same_command(bank: Path) -> None:
    copies, last = bank.parent / "copies", 0
    while True:
        root = copies / str(last)
        shutil.copytree(bank / "registry", root / "registry")
        shutil.copytree(bank / "pipelines", root / "pipelines")
        finished = survives(
            partial(_remove, root),
            last,
            ("fsync", "mkdir", "rename", "replace", "unlink"),
        )
        registry = Registry.open(root / "registry")
        configured = "colours" in Bank.open(root).config.tasks
        assert {problem.kind for problem in registry.verify()} <= {"unfinished"}
        assert configured <= bool(registry.aliases("colours"))  # never answered no more, yet built
        done = remove_task(Bank.open(root), "colours")
        assert (done.configured, done.versions) == (configured, 2)
        assert registry.aliases("colours") == {}
        assert registry.verify() == ()
        assert [event.action for event in registry.history("colours")].count("retire") == 1
        if finished:
            break
        last += 1
    assert last > 10


@pytest.fixture
def orphan(bank: Path) -> Path:
    """Return a version whose record was taken back, as `git checkout` of an older one does."""
    record = bank / "registry" / "aliases" / "colours.json"
    path = Registry.open(bank / "registry").resolve("colours@2").path
    _git(bank, "init", "--quiet")
    content = json.loads(record.read_text())
    content["versions"] = content["versions"][1:]  # newest first
    content["history"] = content["history"][1:]
    record.write_text(json.dumps(content))
    return path


def _git(bank: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    program = shutil.which("git") or "git"
    subprocess.run([program, "-C", str(bank), *who, *words], check=True, capture_output=True)


def test_gc_says_what_it_would_delete_then_deletes_it(bank: Path, orphan: Path, cli: Cli) -> None:
    leftover = bank / "registry" / ".tmp-backbone.json-0123"
    leftover.write_bytes(b"half")
    said = json.loads(cli("gc", "--dry-run", "--json").out)
    assert (said["dry_run"], said["deleted"]) == (True, 0)
    assert {row["path"] for row in said["found"]} == {str(orphan), str(leftover)}
    assert said["bytes"] == 4 + sum(file.stat().st_size for file in orphan.iterdir())
    text = cli("gc", "--dry-run").out
    assert str(orphan) in text
    assert "2 things to delete" in text
    assert orphan.is_dir()
    done = cli("gc")
    assert done.code == 0
    assert str(orphan) in done.out
    assert "2 things deleted" in done.out
    assert not orphan.exists()
    assert not leftover.exists()
    assert cli("verify").code == 0
    assert "0 things to delete" in cli("gc").out


def test_gc_keeps_what_a_commit_of_any_branch_names(bank: Path, orphan: Path, cli: Cli) -> None:
    record = bank / "registry" / "aliases" / "colours.json"
    older = record.read_text()
    Registry.open(bank / "registry").register_directory(_copied(orphan), task="colours")
    _git(bank, "add", "registry/aliases")
    _git(bank, "commit", "--quiet", "--message", "two versions")
    _git(bank, "switch", "--quiet", "--orphan", "other")
    record.parent.mkdir(exist_ok=True)
    record.write_text(older)
    said = json.loads(cli("gc", "--json").out)
    assert said["deleted"] == 0
    (row,) = said["found"]
    assert row["needed_by"].startswith("commit ")
    assert orphan.is_dir()


def _copied(version: Path) -> Path:
    target = version.parents[3] / "copied"
    shutil.copytree(version, target)
    return target


def _remove(root: Path) -> None:
    remove_task(Bank.open(root), "colours")
