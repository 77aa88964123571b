"""`status` names every drift, `sync` repairs what follows the registry, `--adopt` promotes."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from adapterbank.bank.bank import Bank
from adapterbank.integrations.git import git_ignored
from adapterbank.integrations.mlflow.mirror import DIGEST_TAG, MirroredModel, lookup
from adapterbank.integrations.mlflow.store import open_client
from adapterbank.registry.store import Registry
from adapterbank.sync.repair import SyncReport
from tests.bank_samples import damage, republish, sharpen
from tests.cli_samples import Cli
from tests.dvc_samples import run


def told(cli: Cli, *words: str, code: int = 0) -> dict[str, Any]:
    ran = cli(*words, "--json")
    assert ran.code == code, ran.out + ran.err
    content: dict[str, Any] = json.loads(ran.out)
    return content


def drifts(cli: Cli) -> list[str]:
    return [
        f"{one['place']}: {one['message']}" for one in told(cli, "status", code=1)["discrepancies"]
    ]


def number(bank: Path, version: int) -> str:
    """Return MLflow's number of one of our versions."""
    shown = lookup(bank, "colours").of(Registry.open(bank / "registry").versions("colours")
                                       [version - 1].digest)  # fmt: skip
    assert shown is not None
    return str(shown.number)


def snapshot(root: Path) -> dict[str, int]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path): path.stat().st_mtime_ns for path in files if "mlflow.db" not in path.name}


def test_a_bank_whose_mirrors_follow_is_clean(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    assert told(cli, "status") == {"ok": True, "discrepancies": []}
    assert "agree" in cli("status").out
    synced = told(cli, "sync")
    assert (synced["ok"], synced["done"], synced["failed"]) == (True, [], [])


def test_a_deleted_catalogue_is_named_not_made_and_rebuilt_by_sync(bank: Path, cli: Cli) -> None:
    for path in bank.glob("mlflow.db*"):
        path.unlink()
    before = snapshot(bank)
    (found,) = drifts(cli)
    assert "there is no MLflow catalogue" in found
    assert snapshot(bank) == before
    assert not list(bank.glob("mlflow.db*"))

    done = told(cli, "sync")["done"]

    assert any("rebuilt" in text and "runs are gone" in text for text in done)
    model = lookup(bank, "colours")
    assert [shown.version for shown in model.versions] == [1, 2]
    assert [(alias, shown.version) for alias, shown in model.aliases] == [("champion", 1)]
    assert dict(model.versions[0].tags)["kind"] == "adapter"
    assert told(cli, "status")["ok"]
    assert told(cli, "sync")["done"] == []


def test_a_version_that_mlflow_lost_comes_back(bank: Path, cli: Cli) -> None:
    open_client(bank).delete_model_version("colours", number(bank, 2))
    assert drifts(cli) == ["mlflow: MLflow does not show colours@2"]
    assert told(cli, "sync")["ok"]
    assert told(cli, "status")["ok"]


def test_an_edited_tag_is_named_and_mended_without_a_second_copy(bank: Path, cli: Cli) -> None:
    open_client(bank).set_model_version_tag("colours", number(bank, 2), DIGEST_TAG, "f" * 64)
    (found,) = drifts(cli)
    assert DIGEST_TAG in found
    assert told(cli, "sync")["ok"]
    assert told(cli, "status")["ok"]
    assert len(lookup(bank, "colours").versions) == 2


def test_a_source_of_another_md5_is_named_and_made_anew(bank: Path, cli: Cli) -> None:
    client, old = open_client(bank), number(bank, 1)
    tags = dict(client.get_model_version("colours", old).tags)
    client.delete_model_version("colours", old)
    client.create_model_version("colours", source=f"dvc://md5/{'0' * 32}", tags=tags)
    found = drifts(cli)
    assert any("has the source" in text for text in found)
    assert any("colours@champion is missing in MLflow" in text for text in found)
    assert told(cli, "sync")["ok"]
    assert told(cli, "status")["ok"]


def test_an_alias_moved_in_mlflow_is_put_back_by_sync(bank: Path, cli: Cli) -> None:
    client = open_client(bank)
    client.set_registered_model_alias("colours", "champion", number(bank, 2))
    client.set_registered_model_alias("colours", "shadow", number(bank, 2))
    assert drifts(cli) == [
        "mlflow: colours@champion is version 2 in MLflow, version 1 in the registry",
        "mlflow: colours@shadow is version 2 in MLflow, missing in the registry",
    ]
    assert told(cli, "sync")["ok"]
    aliases = lookup(bank, "colours").aliases
    assert [(alias, shown.version) for alias, shown in aliases] == [("champion", 1)]
    assert Registry.open(bank / "registry").aliases("colours") == {"champion": 1}


def test_adopting_promotes_what_mlflow_means(bank: Path, cli: Cli) -> None:
    open_client(bank).set_registered_model_alias("colours", "champion", number(bank, 2))
    done = told(cli, "sync", "--adopt")["done"]
    assert "colours@champion is version 2 now, adopted from MLflow" in done
    registry = Registry.open(bank / "registry")
    assert registry.aliases("colours") == {"champion": 2, "previous": 1}
    last = registry.history("colours")[-1]
    assert (last.action, last.reason) == ("promote", "adopted from MLflow")
    assert told(cli, "status")["ok"]
    assert told(cli, "sync", "--adopt")["done"] == []


def test_a_damaged_version_is_not_adopted(bank: Path, cli: Cli) -> None:
    registry = Registry.open(bank / "registry")
    open_client(bank).set_registered_model_alias("colours", "champion", number(bank, 2))
    damage(registry.resolve("colours@2").path / "adapter_model.safetensors")
    report = told(cli, "sync", "--adopt", code=4)
    assert any("colours@champion was not adopted" in text for text in report["failed"])
    assert registry.aliases("colours") == {"champion": 1}
    assert any(text.startswith("registry: ") for text in drifts(cli))
    shown = lookup(bank, "colours").aliased("champion")
    assert shown is not None
    assert shown.version == 1


def test_an_alias_that_moves_while_it_is_adopted_stays_the_other_s(
    bank: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_client(bank).set_registered_model_alias("colours", "champion", number(bank, 2))
    theirs = republish(Bank.open(bank), "colours@1", sharpen)

    def look(root: Path, task: str) -> MirroredModel:
        """Promote as another process might, between reading the aliases and moving one."""
        registry = Registry.open(bank / "registry")
        if registry.aliases(task)["champion"] == 1:
            registry.promote(str(theirs), expected=1, actor="somebody else")
        return lookup(root, task)

    monkeypatch.setattr("adapterbank.sync.repair.lookup", look)
    report = told(cli, "sync", "--adopt", code=5)
    assert any("colours@champion was not adopted" in text for text in report["failed"])
    registry = Registry.open(bank / "registry")
    assert registry.aliases("colours") == {"champion": 3, "previous": 1}
    assert told(cli, "status")["ok"]


def test_adopting_twice_refused_in_two_ways_is_a_plain_failure() -> None:
    report = SyncReport(failed=["a", "b"], refused={4, 5})
    assert (report.complete, report.exit_code) == (False, 1)


def test_a_version_that_only_mlflow_has_is_named_and_left_to_its_owner(
    bank: Path, cli: Cli
) -> None:
    client = open_client(bank)
    source = f"dvc://md5/{'1' * 32}"
    made = client.create_model_version("colours", source=source, tags={DIGEST_TAG: "e" * 64})
    other = client.create_model_version("colours", source="s3://of/another/tool")
    client.create_registered_model("It's another's")
    expected = [
        *(
            f"mlflow: MLflow's version {one.version} of colours is none of the registry's"
            for one in (made, other)
        ),
        "mlflow: MLflow has a model \"It's another's\", of which the registry has no task",
    ]
    assert drifts(cli) == expected
    synced = told(cli, "sync")
    assert (synced["ok"], synced["done"], synced["failed"]) == (True, [], [])
    assert drifts(cli) == expected
    assert len(lookup(bank, "colours").versions) == 4
    for one in (made, other):
        client.delete_model_version("colours", str(one.version))
    client.delete_registered_model("It's another's")
    assert told(cli, "status")["ok"]


def schema_of_other_letters(database: Path) -> bytes:
    """Return the bytes of a database one letter of whose schema is no UTF-8."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(database.read_bytes())
    content[content.index(b"CREATE TABLE ") + 2] = 0xB2
    return bytes(content)


def kept(database: Path) -> object:
    """Return what a catalogue holds: its rows or, if it is none, its bytes."""
    try:
        with closing(sqlite3.connect(database)) as connection:
            return connection.execute("SELECT name FROM registered_models").fetchall()
    except (sqlite3.Error, UnicodeDecodeError):
        return database.read_bytes()


STATEMENTS = {
    "half": "DROP TABLE model_versions",
    "older": "UPDATE alembic_version SET version_num = '451aebb31d03'",
    "rows": "UPDATE registered_models SET description = CAST(x'ff41' AS TEXT)",
}


@pytest.mark.parametrize("damaged", ["empty", "text", "letters", *STATEMENTS])
def test_a_catalogue_that_cannot_be_used_is_named_and_never_overwritten(
    bank: Path, cli: Cli, damaged: str
) -> None:
    database = bank / "mlflow.db"
    if damaged in {"empty", "text", "letters"}:
        content = schema_of_other_letters(database)
        for path in bank.glob("mlflow.db-*"):
            path.unlink()
        contents = {"empty": b"", "text": b"no database" * 1000, "letters": content}
        database.write_bytes(contents[damaged])
    else:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(STATEMENTS[damaged])
    before = kept(database)
    (found,) = drifts(cli)
    assert found.startswith("mlflow: ")
    assert "mlflow.db" in found
    assert told(cli, "sync", code=1)["failed"]
    assert told(cli, "promote", "colours@2")["mirror"]  # which stands all the same
    assert Registry.open(bank / "registry").aliases("colours")["champion"] == 2
    assert kept(database) == before

    if damaged not in {"empty", "text", "letters"}:
        return  # MLflow keeps the file open as long as this process lives
    for path in bank.glob("mlflow.db*"):  # as the message says: moved away, and made anew
        path.rename(bank / "work" / path.name)
    assert told(cli, "sync")["ok"]
    assert told(cli, "status")["ok"]


def test_a_folder_in_the_catalogue_s_place_is_named_at_once(bank: Path, cli: Cli) -> None:
    for path in bank.glob("mlflow.db*"):
        path.unlink()
    (bank / "mlflow.db").mkdir()
    (found,) = drifts(cli)
    assert "is not a usable MLflow store" in found


def test_a_rebuilt_catalogue_has_the_tags_and_descriptions_it_had(bank: Path, cli: Cli) -> None:
    def shown() -> list[tuple[dict[str, str], str, str | None]]:
        client = open_client(bank)
        found = [
            client.get_model_version("colours", str(one.number))
            for one in lookup(bank, "colours").versions
        ]
        model = client.get_registered_model("colours")
        return [
            (dict(model.tags), model.description or "", ""),
            *((dict(one.tags), one.description or "", one.source) for one in found),
        ]

    before = shown()
    for path in bank.glob("mlflow.db*"):
        path.unlink()
    assert told(cli, "sync")["ok"]
    assert shown() == before
    assert len(before) == 3
    written = snapshot(bank)
    assert told(cli, "sync")["done"] == []
    assert snapshot(bank) == written


def test_an_mlflow_that_does_not_answer_is_a_drift(
    bank: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bank.is_dir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "unknown://anything")
    republish(Bank.open(bank), "colours@1", sharpen, task="more_colours")
    (found,) = drifts(cli)
    assert "unknown://anything" in found
    (told_once,) = told(cli, "sync", code=1)["failed"]  # however many tasks there are
    assert "unknown://anything" in told_once
    adopting, showing = told(cli, "sync", "--adopt", code=1)["failed"]
    assert adopting.startswith("nothing was adopted: ")
    assert showing == told_once


def test_an_experiment_made_at_another_place_is_named_and_set_aside_by_sync(
    bank: Path, cli: Cli
) -> None:
    client = open_client(bank)
    made = client.create_experiment("pets", "file:///another/place/mlartifacts/pets")
    (found,) = drifts(cli)
    assert "'pets' was made at another place" in found
    assert "file:///another/place" in found
    assert "adapterbank sync" in cli("status").out

    done = told(cli, "sync")["done"]

    assert done == [f"MLflow's experiment 'pets' is {client.get_experiment(made).name!r} now"]
    assert told(cli, "status")["ok"]
    assert told(cli, "sync")["done"] == []


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git program")
def test_uncommitted_alias_files_are_named(bank: Path, cli: Cli) -> None:
    def git(*words: str) -> None:
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        program = shutil.which("git") or "git"
        subprocess.run([program, *identity, *words], cwd=bank, check=True, capture_output=True)

    git("init", "--quiet")
    uncommitted = [
        "git: registry/aliases/colours.json is not committed",
        "git: registry/backbone.json is not committed",
    ]
    assert drifts(cli) == uncommitted
    git("add", "registry/aliases")
    assert drifts(cli) == uncommitted
    git("add", "registry/backbone.json")
    git("commit", "--quiet", "-m", "a bank")
    assert told(cli, "status")["ok"]
    assert told(cli, "promote", "colours@2")["moved"]
    assert drifts(cli) == uncommitted[:1]
    assert told(cli, "sync")["ok"]  # to commit is the user's


def under_git(bank: Path) -> None:
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "a bank"]):
        run(bank, "git", *words)


def test_a_git_that_cannot_be_asked_is_a_difference(
    bank: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_git(bank)
    monkeypatch.setenv("PATH", str(bank))
    assert drifts(cli) == ["git: Git could not be asked: there is no git program on the PATH"]
    assert "install git" in cli("status").out


def test_alias_files_that_git_ignores_are_told_where_they_are_made_and_by_status(
    bank: Path, cli: Cli
) -> None:
    (bank / ".gitignore").write_text("*.json\n*.db*\n")
    under_git(bank)
    files = ("registry/aliases/colours.json", "registry/backbone.json")
    assert drifts(cli) == [
        f"git: {name} is ignored by Git (.gitignore:1 *.json), so no clone will have it"
        for name in files
    ]
    assert "is ignored by Git" in cli("register", "work/colours/version").err
    for name in files:
        run(bank, "git", "add", "--force", name)
    run(bank, "git", "commit", "--quiet", "-m", "as it says")
    assert told(cli, "status")["ok"]


def test_init_keeps_alias_files_from_being_ignored_and_tells_where_it_cannot(
    tmp_path: Path, cli: Cli
) -> None:
    run(tmp_path, "git", "init", "--quiet")
    (tmp_path / ".gitignore").write_text("*.json\n")
    assert "is ignored" not in cli("init", tmp_path / "one").err
    assert git_ignored(tmp_path / "one", "registry/aliases/a.json", "registry/router.json") == {}
    (tmp_path / ".gitignore").write_text("registry/\n")
    assert "registry/aliases/TASK.json is ignored by Git" in cli("init", tmp_path / "two").err
