"""``drift`` at the command line: it finds what changed, says what to do, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageEnhance

from adapterbank.bank.bank import Bank
from adapterbank.cli.drift import DRIFTED
from adapterbank.data.base import TaskData
from adapterbank.drift import measure
from tests import kept_bank, served
from tests.cli_samples import Cli
from tests.router_bank import colour_registry, picture, publish, split, strange
from tests.task_files import save_task

TASK = "reds"


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bank:
    """Return a bank of three tasks, the current folder, and folders of new images."""
    kept_bank.write_params(tmp_path)
    colour_registry(tmp_path / "registry")
    for number in range(50):
        label = number % 2
        drawn = {
            "same": picture(TASK, label, 7000 + number),
            "pale": ImageEnhance.Contrast(picture(TASK, label, 7000 + number)).enhance(0.8),
            "greens": picture("greens", label, 7000 + number),
            "strange": strange(),
        }
        for name, image in drawn.items():
            save(image, tmp_path / "new" / name / f"{number:02}.png")
    monkeypatch.chdir(tmp_path)
    return Bank.open(tmp_path)


def save(image: Image.Image, path: Path) -> None:
    """Write an image, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def prepare(bank: Bank, fit: str) -> None:
    """Prepare data of the task, and publish a version that was trained on it."""
    data = TaskData(
        classes=("thin", "wide"),
        train=split(TASK, 10),
        val=split(TASK, 40, 500),
        test=split(TASK, 30, 900),
        source="drawn",
    )
    digest = save_task(data, bank.data(TASK), served.SPEC)
    publish(
        bank.registry,
        TASK,
        9,
        {"data": {"source": "drawn", "digest": digest}, "train": {"epochs": 1, "fit": fit}},
    )


def measured(cli: Cli, *words: str | Path) -> tuple[int, dict[str, Any]]:
    """Run ``drift --json`` with small windows."""
    ran = cli("drift", "--json", "--window", "25", *words)
    assert len(ran.out.splitlines()) == 1
    content: dict[str, Any] = json.loads(ran.out)
    return ran.code, content


@pytest.mark.parametrize("folder", ["same", "pale", "greens", "strange"])
def test_each_change_has_its_verdict_and_nothing_is_written(
    opened: Bank, cli: Cli, folder: str
) -> None:
    before = kept_bank.content_of(opened.root)
    code, content = measured(cli, TASK, Path("new") / folder)
    expected = {
        "same": "none", "pale": "recalibrate", "greens": "other task", "strange": "new task",
    }[folder]  # fmt: skip
    assert content["action"] == expected
    assert code == (0 if folder == "same" else DRIFTED)
    assert [window["images"] for window in content["windows"]] == [25, 25]
    assert content["alarmed"] == ([] if folder == "same" else [0, 1])
    assert (content["task"], content["version"]) == (TASK, 1)
    assert content["reference"] == {"held_out": 60, "confidence": None, "confidence_of": None}
    if folder == "greens":
        assert content["elsewhere"]["greens"] >= 0.8
    if folder == "strange":
        assert content["abstained"] == 1.0
    assert kept_bank.content_of(opened.root) == before


@pytest.mark.parametrize(("fit", "asked"), [("train", "val"), ("train+val", "test")])
def test_confidence_is_compared_on_images_that_the_version_was_not_trained_on(
    opened: Bank, cli: Cli, fit: str, asked: str
) -> None:
    prepare(opened, fit)
    code, content = measured(cli, TASK, "new/same")
    assert (code, content["version"]) == (0, 2)
    assert content["reference"]["confidence_of"] == asked
    assert 0.5 <= content["reference"]["confidence"] <= 1.0
    assert list(content["windows"][0]["findings"]) == ["features", "familiarity", "confidence"]
    # An older version was trained on something else: what is prepared says nothing of it.
    _, older = measured(cli, f"{TASK}@1", "new/same")
    assert older["reference"]["confidence_of"] is None


@pytest.mark.usefixtures("opened")
def test_people_read_a_table_and_a_sentence(cli: Cli) -> None:
    ran = cli("drift", TASK, "new/strange", "--window", "20")
    assert ran.code == DRIFTED
    assert "21–40" in ran.out
    assert "Not judged: the last 10 images" in ran.out
    assert f"{TASK}@1: new task: 100% are of no known task and 0% a little like others" in ran.out
    ran = cli("drift", TASK, "new/same", "--window", "50")
    assert ran.code == 0
    assert "none: nothing tells them from the 60 held-out images" in ran.out


def test_images_that_cannot_be_read_are_named_and_left_out(opened: Bank, cli: Cli) -> None:
    (opened.root / "new" / "same" / "00.png").write_bytes(b"no image")
    code, content = measured(cli, TASK, "new/same", "missing.png")
    assert code == 1
    assert content["action"] == "none"
    assert [bad["image"] for bad in content["unreadable"]] == ["new/same/00.png", "missing.png"]
    assert content["left_over"] == 24
    ran = cli("drift", TASK, "new/same", "--window", "25")
    assert ran.code == 1
    assert "new/same/00.png" in ran.err


@pytest.mark.usefixtures("opened")
def test_folders_are_taken_one_after_another_unless_mixed(cli: Cli) -> None:
    _, apart = measured(cli, TASK, "new/same", "new/greens")
    assert apart["alarmed"] == [2, 3]
    ran = cli("drift", TASK, "new/same", "new/greens", "--window", "25")
    assert "--shuffle mixes them" in ran.err
    _, mixed = measured(cli, TASK, "new/same", "new/greens", "--shuffle")
    assert mixed["alarmed"] == [0, 1, 2, 3]
    assert measured(cli, TASK, "new/same", "new/greens", "--shuffle")[1] == mixed


def test_too_few_images_wrong_names_and_the_router_are_refused(opened: Bank, cli: Cli) -> None:
    ran = cli("drift", TASK, "new/same")
    assert ran.code == 2
    assert "--window 50" in ran.err
    assert cli("drift", "redz", "new/same").code == 3
    assert cli("router", "rebuild").code == 0
    ran = cli("drift", "router", "new/same")
    assert ran.code == 2
    assert "is the router" in ran.err
    for number in range(20):
        (opened.root / f"bad{number}.png").write_bytes(b"no image")
    ran = cli("drift", TASK, "bad*.png", "--window", "20")
    assert ran.code == 2
    assert "none of the 20 images can be read: bad0.png" in ran.err


def test_too_few_images_are_refused_before_any_is_decoded(
    opened: Bank, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "decoded_batches", None)
    assert cli("drift", TASK, opened.root / "new" / "same", "--window", "51").code == 2
