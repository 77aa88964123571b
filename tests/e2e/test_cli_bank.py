"""Commands that look at a registry and move its aliases."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from adapterbank.integrations.mlflow.mirror import lookup
from adapterbank.registry.store import Registry
from tests.cli_samples import Cli


def answer(cli: Cli, *words: str | Path, code: int = 0) -> dict[str, Any]:
    """Run a command with ``--json`` and return its one object."""
    ran = cli(*words, "--json")
    assert ran.code == code, ran.err
    parsed: dict[str, Any] = json.loads(ran.out)
    return parsed


def test_the_list_shows_each_task_by_its_champion(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    (row,) = answer(cli, "list")["tasks"]
    assert list(row) == [
        "task", "version", "digest", "method", "classes", "test", "linear_probe", "parameters",
        "bytes", "versions", "problem", "absent",
    ]  # fmt: skip
    assert (row["task"], row["version"], row["versions"], row["classes"]) == ("colours", 1, 2, 3)
    assert row["test"]["total"] > 0
    text = cli("list").out
    assert "colours" in text
    assert "vapt" in text


def test_the_list_survives_a_version_without_its_bytes(bank: Path, cli: Cli) -> None:
    shutil.rmtree(bank / "registry" / "adapters" / "colours")
    (row,) = answer(cli, "list")["tasks"]
    assert row["version"] == 1
    assert row["problem"]
    assert row["absent"]
    assert "not pulled" in cli("list").out


def test_show_tells_everything_of_a_version(bank: Path, cli: Cli) -> None:
    shown = answer(cli, "show", "colours@2")
    assert (shown["task"], shown["version"], shown["aliases"]) == ("colours", 2, [])
    assert shown["config"]["method"]["hyper"]["prompts"] == 2
    assert shown["bytes"] == sum(shown["files"].values())
    on_disk = {path.name: path.stat().st_size for path in Path(shown["path"]).iterdir()}
    assert shown["files"] == on_disk
    assert shown["path"].startswith(str(bank))
    assert shown["digest"] in cli("show", "colours@2").out


def test_history_tells_every_step_in_order(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    shown = answer(cli, "history", "colours")
    steps = [(event["action"], event["from"], event["to"]) for event in shown["history"]]
    assert steps == [("register", None, 1), ("promote", None, 1), ("register", None, 2)]
    assert shown["aliases"] == {"champion": 1}
    assert "Now: champion is 1" in cli("history", "colours").out


def test_history_tells_the_verdicts_as_well(bank: Path, cli: Cli) -> None:
    registry = Registry.open(bank / "registry")
    registry.record_verdict("colours@2", {"accuracy": 0.5}, reason="0.5 is too low")
    events = answer(cli, "history", "colours")["history"]
    assert (events[-1]["action"], events[-1]["verdict"]) == ("refuse", {"accuracy": 0.5})
    assert events[0]["verdict"] is None
    assert "0.5 is too low" in cli("history", "colours").out


def test_verify_is_content_with_a_sound_bank(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    assert answer(cli, "verify") == {"ok": True, "checked": 2, "problems": []}
    assert "2 versions checked: all is well" in cli("verify").out


@pytest.mark.parametrize("ref", [[], ["colours"], ["colours@2"]], ids=["all", "task", "version"])
def test_verify_names_a_damaged_version_and_ends_with_4(
    bank: Path, cli: Cli, ref: list[str]
) -> None:
    version = Registry.open(bank / "registry").resolve("colours@2")
    (version.path / "metrics.json").write_text("{}")
    report = answer(cli, "verify", *ref, code=4)
    assert not report["ok"]
    assert [problem["kind"] for problem in report["problems"]] == ["damaged"]
    assert "metrics.json" in report["problems"][0]["message"]


def test_promote_and_rollback_move_the_champion_and_back(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    moved = answer(cli, "promote", "colours@2", "--reason", "better")
    assert moved["moved"]
    assert (moved["alias"], moved["from"], moved["to"]) == ("champion", 1, 2)
    assert not answer(cli, "promote", "colours@2")["moved"]
    back = answer(cli, "rollback", "colours")
    assert (back["from"], back["to"], back["version"]) == (2, 1, 1)
    last = answer(cli, "history", "colours")["history"][-1]
    assert (last["action"], last["to"]) == ("rollback", 1)


@pytest.mark.parametrize("expected", ["none", "2"])
def test_promote_refuses_when_the_champion_is_not_the_expected_one(
    bank: Path, cli: Cli, expected: str
) -> None:
    assert bank.is_dir()
    ran = cli("promote", "colours@2", "--expected", expected)
    assert (ran.code, ran.out) == (5, "")
    assert "version 1" in ran.err
    assert answer(cli, "history", "colours")["aliases"] == {"champion": 1}


def test_another_alias_is_made_by_its_first_promotion(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    assert answer(cli, "promote", "colours@2", "--alias", "challenger")["from"] is None
    assert answer(cli, "show", "colours@challenger")["version"] == 2


@pytest.mark.parametrize(
    "words",
    [
        ["show", "colours@9"],
        ["show", "colours@nobody"],
        ["history", "colour"],
        ["verify", "colour"],
        ["promote", "colours@9"],
        ["rollback", "colour"],
        ["train", "colour"],
        ["evaluate", "colour"],
        ["task", "show", "colour"],
        ["task", "sample", "colour"],
    ],
    ids=" ".join,
)
def test_an_unknown_name_ends_with_3(bank: Path, cli: Cli, words: list[str]) -> None:
    assert bank.is_dir()
    ran = cli(*words)
    assert (ran.code, ran.out) == (3, "")


def test_registering_the_same_bytes_again_is_the_same_version(bank: Path, cli: Cli) -> None:
    directory = bank / "work" / "colours" / "version"
    again = answer(cli, "register", directory)
    assert (again["task"], again["version"]) == ("colours", 2)
    assert again["path"].endswith(again["digest"])


@pytest.mark.parametrize(
    ("words", "action"),
    [
        (["promote", "colours@1"], "promote"),
        (["rollback", "colours"], "rollback"),
        (["register", "work/colours/version"], "register"),
    ],
    ids=["promote", "rollback", "register"],
)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_what_was_done_is_done_though_mlflow_does_not_follow(
    bank: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, words: list[str], action: str,
    as_json: bool,
) -> None:  # fmt: skip
    cli("promote", "colours@2")
    if action == "register":  # the version is forgotten and comes back
        shutil.rmtree(bank / "registry" / "adapters")
        shutil.rmtree(bank / "registry" / "aliases")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "unknown://anything")
    ran = cli(*words, *(["--json"] if as_json else []))
    assert ran.code == 0, ran.err
    if as_json:
        assert "unknown://anything" in json.loads(ran.out)["mirror"]
    assert "only MLflow does not show it" in ran.err
    assert "unknown://anything" in ran.err
    assert answer(cli, "history", "colours")["history"][-1]["action"] == action
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert answer(cli, "promote", "colours@1")["mirror"] is None
    champion = Registry.open(bank / "registry").resolve("colours@champion")
    shown = lookup(bank, "colours").aliased("champion")
    assert shown is not None
    assert shown.digest == champion.digest


def test_registering_by_hand_says_what_dvc_does_with_it(bank: Path, cli: Cli) -> None:
    directory = bank / "work" / "colours" / "version"
    assert "is not under DVC" in cli("register", directory).err
    assert "is not under DVC" in answer(cli, "register", directory)["dvc"]


def test_a_version_can_be_registered_only_for_the_backbone_it_was_trained_on(
    bank: Path, cli: Cli
) -> None:
    directory = bank / "work" / "colours" / "version"
    path = directory / "adapter_config.json"
    config = json.loads(path.read_text())
    config["backbone"]["fingerprint"] = "0" * 64
    path.write_text(json.dumps(config))
    ran = cli("register", directory)
    assert (ran.code, ran.out) == (4, "")


def test_a_folder_without_a_version_is_not_registered(bank: Path, cli: Cli) -> None:
    ran = cli("register", bank / "photos")
    assert ran.code == 2
    assert "adapter_config.json" in ran.err


def test_evaluate_measures_a_registered_version(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    shown = answer(cli, "show", "colours@1")
    measured = answer(cli, "evaluate", "colours@1")
    own = shown["metrics"]["test"]
    assert (measured["correct"], measured["total"]) == (own["correct"], own["total"])
    assert sum(map(sum, measured["confusion"])) == measured["total"]
    assert "colours@1 on val" in cli("evaluate", "colours@1", "--split", "val").out


def test_backbone_show_tells_which_network_it_is(bank: Path, cli: Cli) -> None:
    shown = answer(cli, "backbone", "show")
    assert shown["fetched"]
    assert shown["traits"]["width"] == 32
    assert shown["fingerprint"] == Registry.open(bank / "registry").backbone().fingerprint
    assert shown["fingerprint"] in cli("backbone", "show").out


def test_backbone_fetch_does_nothing_where_it_is_fetched(bank: Path, cli: Cli) -> None:
    weights = bank / "registry" / "backbone" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert answer(cli, "backbone", "fetch")["fetched"]
    assert weights.stat().st_mtime_ns == before
