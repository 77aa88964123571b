"""`status` names every drift, `sync` repairs what follows the registry, `--adopt` promotes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from adapterbank.integrations.mlflow_mirror import DIGEST_TAG, lookup
from adapterbank.integrations.mlflow_store import open_client
from adapterbank.registry.store import Registry
from tests.bank_samples import damage
from tests.cli_samples import Cli


def told(cli: Cli, *words: str, code: int = 0) -> dict[str, Any]:
    ran = cli(*words, "--json")
    assert ran.code == code, ran.out + ran.err
    content: dict[str, Any] = json.loads(ran.out)
    return content


def drifts(cli: Cli) -> list[str]:
    return [f"{one['place']}: {one['message']}" for one in told(cli, "status", code=1)["drift"]]


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
    assert told(cli, "status") == {"ok": True, "drift": []}
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
    report = told(cli, "sync", "--adopt", code=1)
    assert any("colours@champion was not adopted" in text for text in report["failed"])
    assert registry.aliases("colours") == {"champion": 1}
    assert any(text.startswith("registry: ") for text in drifts(cli))
    shown = lookup(bank, "colours").aliased("champion")
    assert shown is not None
    assert shown.version == 1


def test_an_mlflow_that_does_not_answer_is_a_drift(
    bank: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bank.is_dir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "unknown://anything")
    (found,) = drifts(cli)
    assert "unknown://anything" in found
    assert told(cli, "sync", code=1)["failed"]


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
