"""``route``, ``router`` and ``predict --task auto`` at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapterbank.bank.bank import Bank
from adapterbank.continual.matrix import read_matrix
from adapterbank.pipeline.release import release
from adapterbank.records import ROUTER
from adapterbank.registry.store import Registry
from adapterbank.release.moves import promote, rollback
from tests import kept_bank
from tests.cli_samples import Cli
from tests.router_bank import COLOURS, colour_registry, picture, publish, strange


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bank:
    """Return a bank of three tasks, the current folder, that MLflow and DVC do not follow."""
    kept_bank.leave_mirrors_out(monkeypatch)
    kept_bank.write_params(tmp_path)
    colour_registry(tmp_path / "registry")
    for task in COLOURS:
        picture(task, 0, 4322).save(tmp_path / f"{task}.png")
    strange().save(tmp_path / "strange.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return Bank.open(tmp_path)


IMAGES = ("reds.png", "strange.png", "blues.png")


def test_release_builds_the_router_and_a_second_one_changes_nothing(opened: Bank) -> None:
    release(opened)
    before = kept_bank.content_of(opened.root / "registry")
    release(opened)
    assert kept_bank.content_of(opened.root / "registry") == before
    assert opened.registry.resolve(ROUTER).version == 1


def test_release_makes_the_folder_that_dvc_expects_also_for_no_task(tmp_path: Path) -> None:
    kept_bank.write_params(tmp_path)
    release(Bank.open(tmp_path))
    assert list((tmp_path / "registry" / "router").iterdir()) == []


def test_auto_answers_each_image_or_says_no_known_task(opened: Bank, cli: Cli) -> None:
    release(opened)
    ran = cli("predict", "--task", "auto", "--json", *IMAGES)
    assert ran.code == 0
    reds, nothing, blues = (json.loads(line) for line in ran.out.splitlines())
    assert (reds["task"], blues["task"]) == ("reds", "blues")
    assert reds["route"]["outcome"] in {"task", "ambiguous"}
    assert reds["route"]["router"] == opened.registry.resolve(ROUTER).digest
    assert (nothing["image"], nothing["task"], nothing["abstained"]) == ("strange.png", None, True)
    assert nothing["route"]["outcome"] == "abstain"
    ran = cli("predict", "--task", "auto", *IMAGES, "bad.png")
    assert ran.code == 1  # of the image that cannot be read; an abstention is an answer
    assert "reds: " in ran.out
    assert "no known task" in ran.out
    assert "1 of no known task" in ran.err
    assert "bad.png" in ran.err


def test_route_names_tasks_without_answering(opened: Bank, cli: Cli) -> None:
    release(opened)
    ran = cli("route", "--json", "--top-k", "2", *IMAGES, "bad.png")
    assert ran.code == 1
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [line["image"] for line in lines] == [*IMAGES, "bad.png"]
    assert [line.get("task") for line in lines] == ["reds", None, "blues", None]
    assert list(lines[0]) == [
        "image", "outcome", "task", "score", "p_value", "margin", "candidates", "router",
    ]  # fmt: skip
    assert len(lines[0]["candidates"]) == 2
    assert "error" in lines[3]
    ran = cli("route", *IMAGES)
    assert ran.code == 0
    assert [line.split()[:2] for line in ran.out.splitlines()] == [
        ["reds.png", "reds"], ["strange.png", "no"], ["blues.png", "blues"],
    ]  # fmt: skip


def test_without_a_router_the_error_says_what_to_type(opened: Bank, cli: Cli) -> None:
    assert opened.registry.names() == tuple(sorted(COLOURS))
    for words in (("route", "reds.png"), ("predict", "--task", "auto", "reds.png")):
        ran = cli(*words)
        assert ran.code == 3
        assert "adapterbank router rebuild" in ran.err


def test_the_bank_says_how_the_router_is_built(opened: Bank, cli: Cli) -> None:
    params = opened.root / "pipelines" / "params.yaml"
    text = params.read_text()
    params.write_text(f"{text}router: {{alpha: 0.25, reference: greens@1}}\n")
    assert cli("router", "rebuild").code == 0
    told = json.loads(cli("router", "show", "--json").out)
    assert (told["mode"], told["alpha"], told["aside"]) == ("isolated", 0.25, "greens")
    assert sorted(told["tasks"]) == ["blues", "reds"]
    assert "isolated, features after block" in cli("router", "show").out
    release(Bank.open(opened.root))
    assert opened.registry.resolve(ROUTER).version == 1  # the very same
    params.write_text(text)
    release(Bank.open(opened.root))
    assert sorted(json.loads(cli("router", "show", "--json").out)["tasks"]) == sorted(COLOURS)
    params.write_text(f"{text}router: {{reference: nobody@1}}\n")
    ran = cli("router", "rebuild")
    assert ran.code == 3
    assert "nobody" in ran.err


def test_the_router_is_shown_with_the_classes_of_each_task(opened: Bank, cli: Cli) -> None:
    for name, classes in (("reds", ("one", "two", "three", "four")), ("whites", ("one", "two"))):
        publish(opened.registry, name, 9, classes=classes)
    release(opened)
    tasks = json.loads(cli("router", "show", "--json").out)["tasks"]
    assert {name: tasks[name]["classes"] for name in ("reds", "whites")} == {"reds": 4, "whites": 2}
    rows = [line.split() for line in cli("router", "show").out.splitlines()]
    assert ["reds", "4"] in [row[:2] for row in rows]


def test_drift_of_a_task_that_the_reference_cannot_measure_is_refused(
    opened: Bank, cli: Cli
) -> None:
    publish(opened.registry, "reds", 9, blocks=(2,))
    params = opened.root / "pipelines" / "params.yaml"
    params.write_text(f"{params.read_text()}router: {{reference: greens@1}}\n")
    ran = cli("drift", "reds", "--window", "30", *["reds.png"] * 30)
    assert ran.code == 2
    assert "its record is of blocks 2" in ran.err
    assert "train@reds" in ran.err


def test_the_task_that_the_router_measures_by_answers_but_is_never_found(
    opened: Bank, cli: Cli
) -> None:
    params = opened.root / "pipelines" / "params.yaml"
    params.write_text(f"{params.read_text()}router: {{reference: greens@1}}\n")
    publish(opened.registry, "whites", 5)
    release(Bank.open(opened.root))
    assert sorted(json.loads(cli("router", "show", "--json").out)["tasks"]) == [
        "blues", "reds", "whites",
    ]  # fmt: skip
    last = read_matrix(opened.root).steps[-1]
    assert "greens" in last.champions  # it answers who asks it by its name
    assert "greens" in last.oracle
    assert "greens" not in last.routed
    ran = cli("drift", "greens", "--window", "30", *["greens.png"] * 30)
    assert ran.code == 2
    assert "router.reference" in ran.err
    assert cli("predict", "--task", "greens", "greens.png").code == 0


def test_the_router_has_a_history_and_goes_back(opened: Bank, cli: Cli) -> None:
    assert cli("router", "rebuild").code == 0
    opened.registry.retire("reds")
    told = json.loads(cli("router", "rebuild", "--json").out)
    assert told["published"]
    assert told["tasks"] == ["blues", "greens"]
    shown = json.loads(cli("router", "show", "--json").out)
    assert (shown["version"], sorted(shown["tasks"])) == (2, ["blues", "greens"])
    assert cli("rollback", "router", "--expected", "2").code == 0
    assert "reds" in cli("router", "show").out
    assert "reds" not in cli("router", "show", "router@2").out
    history = json.loads(cli("history", "router", "--json").out)
    assert history["aliases"] == {"champion": 1}
    assert [event["action"] for event in history["history"]] == [
        "register", "promote", "register", "promote", "rollback",
    ]  # fmt: skip
    assert cli("promote", "router@2").code == 0
    assert cli("verify").code == 0
    assert ROUTER not in json.loads(cli("list", "--json").out)


def test_the_router_is_no_task_to_be_shown_or_predicted_with(opened: Bank, cli: Cli) -> None:
    release(opened)
    for words in (("show", "router"), ("predict", "--task", "router", "reds.png")):
        ran = cli(*words)
        assert ran.code == 2
        assert "is the router" in ran.err


def test_an_audit_covers_the_router_and_names_it_when_damaged(opened: Bank, cli: Cli) -> None:
    release(opened)
    assert cli("audit").code == 0
    path = opened.registry.resolve(ROUTER).path / "router.json"
    path.write_text(path.read_text().replace("pooled", "isolated"))
    ran = cli("audit")
    assert ran.code == 1
    assert "router" in ran.out
    assert cli("verify").code == 4


def test_moves_by_hand_check_the_router_first(opened: Bank) -> None:
    release(opened)
    opened.registry.retire("reds")
    release(opened)
    assert rollback(opened, ROUTER).move.after.version == 1
    assert promote(opened, "router@2", expected=1).move.moved
    assert Registry.open(opened.root / "registry").aliases(ROUTER)["champion"] == 2
