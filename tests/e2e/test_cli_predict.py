"""``adapterbank predict``: what it answers, in which order, and what it does with bad images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from adapterbank.registry.store import Registry
from tests.cli_samples import COLOURS, Cli
from tests.opened import opened_records

KEYS = ["image", "task", "version", "digest", "label", "probability", "top_k", "latency_ms"]


def lines(text: str) -> list[dict[str, Any]]:
    """Parse one object a line."""
    return [json.loads(line) for line in text.splitlines()]


def test_every_answer_is_one_object_with_all_its_keys(bank: Path, cli: Cli) -> None:
    ran = cli("predict", "--task", "colours", "--json", "photos/green/00.png")
    assert ran.code == 0
    (answer,) = lines(ran.out)
    assert list(answer) == KEYS
    version = Registry.open(bank / "registry").resolve("colours@1")
    assert (answer["image"], answer["task"], answer["version"], answer["digest"]) == (
        "photos/green/00.png", "colours", 1, version.digest,
    )  # fmt: skip
    assert answer["top_k"][0] == {"label": answer["label"], "probability": answer["probability"]}
    assert {top["label"] for top in answer["top_k"]} == set(COLOURS)
    assert sum(top["probability"] for top in answer["top_k"]) == pytest.approx(1.0, abs=1e-5)
    assert answer["latency_ms"] > 0


def test_plain_colours_are_told_apart(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    ran = cli("predict", "--task", "colours", "--json", "photos")
    right = [Path(answer["image"]).parent.name == answer["label"] for answer in lines(ran.out)]
    assert sum(right) / len(right) > 0.8  # chance is 0.33


def test_answers_stand_in_the_order_of_the_arguments(bank: Path, cli: Cli) -> None:
    shutil.copy(bank / "photos" / "blue" / "00.png", bank / "photos" / "[1].png")
    ran = cli(
        "predict", "--task", "colours@2", "--json", "--batch-size", "3", "--top-k", "1",
        "photos/rusty red/03.png", "photos/blue", "photos/[1].png", "photos/g*/1?.png", "-",
        stdin="photos/green/02.png\n\nphotos/blue/00.png\n",
    )  # fmt: skip
    assert ran.code == 0
    answers = lines(ran.out)
    assert [answer["image"] for answer in answers] == [
        "photos/rusty red/03.png",
        *(f"photos/blue/{number:02}.png" for number in range(12)),
        "photos/[1].png",  # a file of that name, so no pattern
        "photos/green/10.png",
        "photos/green/11.png",
        "photos/green/02.png",
        "photos/blue/00.png",
    ]
    assert {answer["version"] for answer in answers} == {2}
    assert {len(answer["top_k"]) for answer in answers} == {1}


def test_a_folder_means_the_images_in_it_and_below(bank: Path, cli: Cli) -> None:
    (bank / "photos" / "notes.txt").write_text("no image")
    (bank / "photos" / ".hidden.png").write_bytes(b"")
    ran = cli("predict", "--task", "colours", "--json", "photos")
    images = [answer["image"] for answer in lines(ran.out)]
    assert len(images) == 36
    assert images == sorted(images)


def test_bad_images_are_named_in_their_place_and_the_rest_go_on(bank: Path, cli: Cli) -> None:
    (bank / "zero.png").write_bytes(b"")
    (bank / "text.jpg").write_text("not an image")
    ran = cli("predict", "--task", "colours", "--json", "zero.png", "photos/blue/00.png",
              "text.jpg", "absent.png", "photos/n*", "photos/green/00.png")  # fmt: skip
    assert ran.code == 1
    answers = lines(ran.out)
    bad = {0: "zero.png", 2: "text.jpg", 3: "absent.png", 4: "photos/n*"}
    assert {row: a["image"] for row, a in enumerate(answers) if "error" in a} == bad
    assert all(list(answers[row]) == ["image", "error"] for row in bad)
    assert all(list(answers[row]) == KEYS for row in (1, 5))


def test_without_json_bad_images_are_named_on_standard_error(bank: Path, cli: Cli) -> None:
    (bank / "zero.png").write_bytes(b"")
    ran = cli("predict", "--task", "colours", "zero.png", "photos/blue/00.png")
    assert ran.code == 1
    assert "zero.png: " in ran.err
    assert "1 image with colours@1" in ran.err
    assert "1 could not be read" in ran.err
    assert ran.out.split()[0] == "photos/blue/00.png"
    assert len(ran.out.splitlines()) == 1


@pytest.mark.parametrize("path", ["nothing/*.png", "empty", "-"])
def test_no_image_at_all_is_a_usage_error(bank: Path, cli: Cli, path: str) -> None:
    (bank / "empty").mkdir()
    ran = cli("predict", "--task", "colours", "--json", path)
    assert (ran.code, ran.out) == (2, "")


def test_a_damaged_version_answers_nothing(bank: Path, cli: Cli) -> None:
    version = Registry.open(bank / "registry").resolve("colours")
    weights = version.path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    ran = cli("predict", "--task", "colours", "--json", "photos")
    assert (ran.code, ran.out) == (4, "")
    assert "adapter_model.safetensors" in json.loads(ran.err)["message"]


def test_a_bank_with_a_broken_configuration_still_answers(bank: Path, cli: Cli) -> None:
    (bank / "pipelines" / "params.yaml").write_text("profile: [")
    assert cli("predict", "--task", "colours", "photos/blue/00.png").code == 0
    assert cli("task", "list").code == 2


def test_the_reference_is_resolved_once(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    with opened_records() as records:
        assert cli("predict", "--task", "colours", "--json", "photos/blue").code == 0
    assert records == ["colours.json"]


def test_a_device_may_be_left_to_the_machine(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    assert cli("predict", "--task", "colours", "--device", "auto", "photos/blue/00.png").code == 0


def test_names_that_are_all_no_utf_8_are_errors_of_their_own(bank: Path, cli: Cli) -> None:
    assert bank.is_dir()
    ran = cli("predict", "--task", "colours", "caf\udce9.png")
    assert (ran.code, ran.out) == (1, "")
    assert r"caf\udce9.png: this name is not UTF-8" in ran.err
