"""Commands about the tasks a bank builds, and the stages that build them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adapterbank.config.bank import load_config
from tests.cli_samples import COLOURS, Cli, draw


def answer(cli: Cli, *words: str | Path) -> dict[str, Any]:
    """Run a command with ``--json`` and return its one object."""
    ran = cli(*words, "--json")
    assert (ran.code, ran.err) == (0, "")  # programs read both streams
    parsed: dict[str, Any] = json.loads(ran.out)
    return parsed


def test_adding_a_task_keeps_every_line_that_was_there(bank: Path, cli: Cli) -> None:
    path = bank / "pipelines" / "params.yaml"
    before = path.read_text()
    added = answer(cli, "task", "add", "again", "--data", bank / "photos", "--hyper", "prompts=3",
                   "--hyper", "conv=false", "--train", "epochs=2", "--seed", "5")  # fmt: skip
    assert added["section"]["data"] == "photos"  # relative to the bank, so it may move
    assert sum(added["counts"].values()) == 36
    assert added["classes"] == sorted(COLOURS)
    assert path.read_text().startswith(before)
    section = load_config(bank).task("again")
    assert (section.hyper, section.train) == ({"prompts": 3, "conv": False}, {"epochs": 2})
    assert (section.data, section.seed) == ("photos", 5)


def test_a_folder_outside_the_bank_is_named_in_full(bank: Path, cli: Cli, tmp_path: Path) -> None:
    for index, (name, colour) in enumerate(COLOURS.items()):
        for number in range(5):
            draw(tmp_path / "else" / name / f"{number}.png", colour, 10 * index + number)
    assert answer(cli, "task", "add", "far", "--data", "../else")["section"] == {
        "data": str(tmp_path / "else"), "method": "vapt",
    }  # fmt: skip
    assert load_config(bank).task("far").data == str(tmp_path / "else")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["colours", "--data", "photos"], 5),
        (["new", "--data", "nowhere"], 2),
        (["new", "--data", "photos/blue"], 2),
        (["new", "--data", "embedded://digit"], 3),
        (["new", "--data", "torchvision://DTT"], 3),
        (["new", "--data", "http://example.org"], 3),
        (["new", "--data", "photos", "--method", "vpat"], 3),
        (["new", "--data", "photos", "--method", "vpt-deep"], 3),
        (["new", "--data", "photos", "--hyper", "promts=3"], 2),
        (["new", "--data", "photos", "--train", "epochs=0"], 2),
        (["new", "--data", "photos", "--train", "recipe=papr"], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_whatever_is_wrong_with_a_new_task_nothing_is_written(
    bank: Path, cli: Cli, words: list[str], code: int
) -> None:
    path = bank / "pipelines" / "params.yaml"
    before = path.read_bytes()
    ran = cli("task", "add", *words)
    assert (ran.code, ran.out) == (code, "")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("folders", "problem"),
    [
        (["train/one", "test/one"], "1 class folders, expected at least 2"),
        (["train/one", "train/two", "val/none", "test/one"], "val/: classes that train/ lacks"),
    ],
)
def test_data_that_preparing_would_refuse_is_refused_at_once(
    bank: Path, cli: Cli, folders: list[str], problem: str
) -> None:
    for index, folder in enumerate(folders):
        draw(bank / "few" / folder / "0.png", (40, 40, 200), index)
    ran = cli("task", "add", "few", "--data", "few")
    assert (ran.code, ran.out) == (2, "")
    assert problem in ran.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--data", "photos", "--seed", "-1"], 2, "seed: input should be greater than or equal to"),
        (["--data", "pipelines/params.yaml"], 2, "not a folder"),
        (["--data", "nothere"], 2, "no such folder"),
        (["--data", "x" * 300], 2, "expected one with a sub-folder"),
        (["--data", "~nobody-of-that-name/x"], 2, "nobody-of-that-name"),
        (["--data", "caf\udce9"], 2, r"caf\udce9: this name is not UTF-8"),
        (["--data", "photos", "--drop-copies", "all"], 2, "drop_copies: input should be 'train'"),
    ],
    ids=lambda value: " ".join(value)[-20:] if isinstance(value, list) else None,
)
def test_an_ordinary_mistake_is_said_in_a_sentence(
    bank: Path, cli: Cli, words: list[str], code: int, says: str
) -> None:
    before = (bank / "pipelines" / "params.yaml").read_bytes()
    ran = cli("task", "add", "few", *words)
    assert (ran.code, ran.out, says in ran.err) == (code, "", True), ran.err
    assert (bank / "pipelines" / "params.yaml").read_bytes() == before


def test_what_preparing_would_refuse_is_refused_with_the_option_that_goes_on(
    bank: Path, cli: Cli
) -> None:
    shutil.copytree(bank / "photos", bank / "few" / "train")
    shutil.copytree(bank / "photos", bank / "few" / "test")
    for index, name in enumerate(COLOURS):
        draw(bank / "few" / "test" / name / "own.png", (9, 9, 9), 900 + index)
        (bank / "few" / "train" / name / "note.heic").write_bytes(b"?")
        (bank / "few" / "train" / name / "bad.png").write_bytes(b"?")
    ran = cli("task", "add", "few", "--data", "few")
    assert (ran.code, "--skip-unreadable" in ran.err, "3 images cannot be" in ran.err) == (
        2,
        True,
        True,
    )
    ran = cli("task", "add", "few", "--data", "few", "--skip-unreadable")
    assert (ran.code, "--drop-copies test" in ran.err) == (2, True)
    words = ("few", "--data", "few", "--skip-unreadable", "--drop-copies", "test")
    told = answer(cli, "task", "add", *words)
    assert told["section"]["skip_unreadable"] is True
    assert [(one["reason"][:20], one["count"]) for one in told["left_out"]][:2] == [
        ("HEIC, which cannot b", 3), ("cannot be decoded", 3),
    ]  # fmt: skip
    prepared = answer(cli, "stage", "prepare", "few")
    assert prepared["left_out"] == told["left_out"]
    assert prepared["counts"] == told["counts"]
    assert "?skipped_unreadable=3&dropped_copies=" in prepared["source"]


def test_a_split_without_images_is_refused_at_once(bank: Path, cli: Cli) -> None:
    for index, name in enumerate(["train/one", "train/two", "test/one"]):
        draw(bank / "few" / name / "0.png", (40, 40, 200), index)
    (bank / "few" / "val" / "one").mkdir(parents=True)
    ran = cli("task", "add", "few", "--data", "few")
    assert (ran.code, ran.out) == (2, "")
    assert "val: no images" in ran.err


def test_a_training_setting_may_have_an_exponent_without_a_point(bank: Path, cli: Cli) -> None:
    answer(cli, "task", "add", "again", "--data", "photos", "--train", "learning_rate=2e-3")
    assert load_config(bank).training("again").learning_rate == 0.002


def test_sources_that_need_no_folder_are_taken_by_name(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    for name, uri in (("numbers", "embedded://digits"), ("dtd", "torchvision://DTD")):
        assert answer(cli, "task", "add", name, "--data", uri)["section"]["data"] == uri
    rows = answer(cli, "task", "list")["tasks"]
    assert [row["task"] for row in rows] == ["colours", "numbers", "dtd"]


def test_task_list_and_show_say_how_far_a_task_is(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    (row,) = answer(cli, "task", "list")["tasks"]
    assert (row["prepared"], row["trained"], row["versions"], row["champion"]) == (True, True, 2, 1)
    shown = answer(cli, "task", "show", "colours")
    assert shown["training"]["epochs"] == 1
    assert shown["splits"]["classes"] == sorted(COLOURS)
    text = cli("task", "show", "colours").out
    assert "rusty red" in text
    assert "Profile: tiny" in cli("task", "list").out


def test_samples_are_named_by_their_true_class(bank: Path, cli: Cli) -> None:
    written = answer(cli, "task", "sample", "colours", "--count", "4", "--out", bank / "some")
    images = written["images"]
    *firsts, second = images
    assert [image["label"] for image in firsts] == sorted(COLOURS)
    assert [Path(image["image"]).name for image in firsts] == [
        "blue-1.png", "green-1.png", "rusty_red-1.png",
    ]  # fmt: skip
    assert Path(second["image"]).name == f"{second['label'].replace(' ', '_')}-2.png"
    for image in images:
        pixels = np.asarray(Image.open(image["image"]))
        assert pixels.shape == (32, 32, 3)
        # The mean colour of noise around the class's, ±30 a pixel.
        assert np.abs(pixels.mean((0, 1)) - COLOURS[image["label"]]).max() < 5


def test_training_a_task_by_hand_says_what_to_do_next(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    ran = cli("train", "colours")
    assert ran.code == 0
    assert "Next: adapterbank evaluate colours --trained" in ran.out
    assert "epoch 1/1  loss" in ran.err
    ran = cli("evaluate", "colours", "--trained")
    assert ran.code == 0
    assert "Next: adapterbank register" in ran.out


def test_a_bare_name_is_the_champion_though_a_trained_adapter_waits(bank: Path, cli: Cli) -> None:
    assert (bank / "work" / "colours" / "trained").is_dir()
    found = answer(cli, "evaluate", "colours", "--split", "val", "--device", "cpu")
    assert (found["version"], found["split"]) == (1, "val")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["colours", "--split", "test"], 2),
        (["colours", "--device", "cpu"], 2),
        (["colours@1"], 3),
        (["colour"], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_completing_a_trained_adapter_takes_a_task_and_no_choice_of_split_or_device(
    bank: Path, cli: Cli, words: list[str], code: int
) -> None:
    before = (bank / "work" / "colours" / "metrics.json").stat().st_mtime_ns
    ran = cli("evaluate", "--trained", *words)
    assert (ran.code, ran.out) == (code, "")
    assert (bank / "work" / "colours" / "metrics.json").stat().st_mtime_ns == before


PREPARED = "3 classes; images:"


def test_images_are_prepared_again_only_where_their_parameters_changed(
    bank: Path, cli: Cli
) -> None:
    path = bank / "pipelines" / "params.yaml"
    params = path.read_text()
    cli("train", "colours")
    assert PREPARED not in cli("train", "colours").err
    path.write_text(params.replace("epochs: 1", "epochs: 2").replace("prompts: 2", "prompts: 3"))
    assert PREPARED not in cli("train", "colours").err
    (bank / "photos").rename(bank / "images")
    for old, new in (
        ("data: photos", "data: images"), ("test: 12", "test: 6"), ("seed: 1", "seed: 3"),
    ):  # fmt: skip
        assert old in params
        params = params.replace(old, new)
        path.write_text(params)
        assert PREPARED in cli("train", "colours").err
    assert answer(cli, "task", "show", "colours")["splits"]["counts"]["test"] == 6


@pytest.mark.parametrize("harm", ["missing", "damaged", "of other data", "data damaged"])
def test_images_are_prepared_again_where_nobody_knows_from_what(
    bank: Path, cli: Cli, harm: str
) -> None:
    cli("train", "colours")
    note = bank / "work" / "colours" / "prepared.json"
    content = json.loads(note.read_text())
    if harm == "missing":
        note.unlink()
    elif harm == "data damaged":
        (bank / "work" / "colours" / "data" / "task.json").write_text("{}")
    else:
        other = json.dumps(content | {"digest": "0" * 64})
        note.write_text("{" if harm == "damaged" else other)
    assert PREPARED in cli("train", "colours").err
    assert json.loads(note.read_text()) == content


@pytest.mark.parametrize("words", [["train", "colours"], ["evaluate", "colours"]], ids=" ".join)
def test_work_by_hand_refuses_another_backbone_than_that_of_the_versions(
    bank: Path, cli: Cli, words: list[str]
) -> None:
    path = bank / "pipelines" / "params.yaml"
    path.write_text(path.read_text().replace("[32, 32]", "[48, 48]"))
    ran = cli(*words)
    assert (ran.code, ran.out) == (5, "")


def test_training_by_hand_fetches_and_prepares_for_another_backbone_before_there_are_versions(
    bank: Path, cli: Cli
) -> None:
    for name in ("adapters", "aliases"):
        shutil.rmtree(bank / "registry" / name)
    path = bank / "pipelines" / "params.yaml"
    path.write_text(path.read_text().replace("[32, 32]", "[48, 48]"))
    ran = cli("train", "colours")
    assert (ran.code, PREPARED in ran.err) == (0, True)
    assert answer(cli, "backbone", "show")["input"]["size"] == [48, 48]


def test_the_stages_of_the_pipeline_say_what_they_did_as_json(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    assert answer(cli, "stage", "prepare", "colours")["classes"] == 3
    trained = answer(cli, "stage", "train", "colours")
    assert trained["val"]["total"] > 0
    assert answer(cli, "stage", "evaluate", "colours")["metrics"]["test"]["total"] > 0
    # The configuration is that of the first version, so this is the first version.
    registered = answer(cli, "stage", "register", "colours")
    assert registered["version"] == 1
    (verdict,) = answer(cli, "stage", "release")["verdicts"]
    assert verdict["task"] == "colours"
    assert (bank / "reports" / "release.json").is_file()


def test_init_makes_a_bank_and_is_content_with_one(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = answer(cli, "init", "own", "--no-git")
    assert made["bank"] == str(tmp_path / "own")
    assert "pipelines/params.yaml" in made["changed"]
    monkeypatch.chdir(tmp_path / "own")
    assert answer(cli, "list") == {"bank": str(tmp_path / "own"), "tasks": []}
    assert answer(cli, "init", "--no-git")["changed"] == []


@pytest.mark.slow
@pytest.mark.timeout(300)  # `dvc repro` starts a process for each stage
def test_the_demonstration_builds_a_bank_and_predicts_with_it(bank: Path, cli: Cli) -> None:
    kept = (bank / "pipelines" / "params.yaml").read_text()
    for name in ("registry", "work", "pipelines"):
        shutil.rmtree(bank / name)
    assert cli("init", "--no-git").code == 0
    # The sections that dvc.yaml names, which this short file leaves out.
    kept = kept.replace("batch_size: 8}\n", "batch_size: 8}\n    search: null\n")
    (bank / "pipelines" / "params.yaml").write_text(
        f"{kept}gates: {{}}\nspaces: {{}}\nrouter: {{blocks: null}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "adapterbank", "demo", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [task["task"] for task in told["tasks"]] == ["colours"]
    assert [one["truth"] for one in told["predictions"]] == sorted(COLOURS)
    assert [one["truth"] for one in told["routed"]] == ["colours", None]
    assert (told["added"], told["audit"]["ok"]) == ("colours", True)
    assert "Running stage 'train@colours'" in done.stderr
    assert "Stage 'train@colours' didn't change, skipping" in done.stderr
