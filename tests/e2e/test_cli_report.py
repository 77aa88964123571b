"""``report`` at the command line, on a bank whose versions, router and images are real."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from adapterbank.backbones import loading
from adapterbank.bank.bank import Bank
from adapterbank.continual import matrix
from adapterbank.continual.matrix import MATRIX, Matrix
from adapterbank.data.base import TaskData
from adapterbank.pipeline.release import release
from tests import kept_bank, router_bank, served
from tests.cli_samples import Cli
from tests.overview_samples import steps, write_matrix
from tests.task_files import save_task

PAGE = Path("reports/bank.html")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a released bank of three tasks that nobody changes; one has no prepared images."""
    root = tmp_path_factory.mktemp("released") / "bank"
    with pytest.MonkeyPatch.context() as patch:
        kept_bank.leave_mirrors_out(patch)
        kept_bank.write_params(root)
        router_bank.colour_registry(root / "registry")
        bank = Bank.open(root)
        for task in ("reds", "greens"):
            train, val, test = (router_bank.split(task, 10, start) for start in (0, 500, 900))
            data = TaskData(classes=("thin", "wide"), source="drawn",
                            train=train, val=val, test=test)  # fmt: skip
            save_task(data, bank.data(task), served.SPEC)
        release(bank)
    return root


@pytest.fixture
def opened(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bank:
    """Return a copy of that bank, the current folder."""
    kept_bank.leave_mirrors_out(monkeypatch)
    root = tmp_path / "bank"
    shutil.copytree(released, root)
    monkeypatch.chdir(root)
    return Bank.open(root)


def test_one_page_has_the_whole_bank(opened: Bank, cli: Cli) -> None:
    ran = cli("report")
    assert ran.code == 0
    assert str(opened.root / PAGE) in ran.out
    assert ran.err == ""
    page = PAGE.read_text()
    for part in ("Tasks", "Accuracy after every step", "Router", "Storage", "Backbone",
                 "Versions and verdicts"):  # fmt: skip
        assert f"<h2>{part}</h2>" in page
    for task in router_bank.COLOURS:
        assert f'<th scope="row">{task}</th>' in page
        assert opened.registry.resolve(task).digest in page
    assert opened.registry.backbone().fingerprint in page
    assert "on 40 test images of 2 tasks" in page
    assert "Without blues: work/blues/data: no prepared task here" in page
    assert "adapter bank" in page.lower()


def test_what_the_page_lacks_is_told(opened: Bank, cli: Cli) -> None:
    (opened.root / MATRIX).unlink()
    ran = cli("report")
    assert ran.code == 0
    assert f"{MATRIX} has no step yet" in ran.err
    assert f"{MATRIX} has no step yet" in PAGE.read_text()


def test_the_same_bank_gives_the_same_bytes_wherever_it_lies(opened: Bank, cli: Cli) -> None:
    assert cli("report").code == 0
    first = PAGE.read_bytes()
    assert cli("report").code == 0  # features are those that were kept now
    assert PAGE.read_bytes() == first
    moved = opened.root.parent / "moved there"
    shutil.copytree(opened.root, moved)
    assert cli("report", "--bank", moved, "--out", "other/page.html").code == 0
    assert Path("other/page.html").read_bytes() == first
    assert str(opened.root).encode() not in first


def test_json_has_the_figures_and_the_digest_of_the_page(opened: Bank, cli: Cli) -> None:
    write_matrix(opened.root / "reports" / "matrix.json", json.dumps({"schema": 1, "steps": []}))
    ran = cli("report", "--json", "--out", "page.html")
    assert ran.code == 0
    assert ran.err == ""
    told = json.loads(ran.out)
    page = Path(told["report"])
    assert page == opened.root / "page.html"
    assert hashlib.sha256(page.read_bytes()).hexdigest() == told["sha256"]
    assert [task["task"] for task in told["tasks"]] == ["blues", "greens", "reds"]
    assert told["tasks"][0]["champion"]["test"] == served.METRICS["test"]
    assert [row["task"] for row in told["router"]["figures"]["confusion"]] == ["greens", "reds"]
    assert told["matrix"]["missing"] == "reports/matrix.json has no step yet"
    past = [event for one in [*told["tasks"], told["router"]] for event in one["history"]]
    assert told["newest"] == max(event["time"] for event in past)


@pytest.mark.usefixtures("opened")
def test_history_in_json_is_that_of_the_history_command(cli: Cli) -> None:
    report = json.loads(cli("report", "--json").out)
    history = json.loads(cli("history", "reds", "--json").out)
    assert report["tasks"][2]["history"] == history["history"]


@pytest.mark.parametrize(
    ("options", "setting", "expected"),
    [((), "cpu", "cpu"), ((), "cuda:99", "cuda:99"), (("--device", "cpu"), "cuda:99", "cpu")],
    ids=["the bank's", "the bank's, which is not here", "another"],
)
def test_images_are_looked_at_where_the_bank_trains_unless_told_otherwise(
    opened: Bank,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    setting: str,
    expected: str,
) -> None:
    asked: list[str] = []

    def pick(name: str) -> torch.device:
        asked.append(name)
        return torch.device("cpu")

    monkeypatch.setattr(loading, "pick_device", pick)
    path = opened.root / "pipelines" / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["profiles"][params["profile"]]["train"]["device"] = setting
    path.write_text(yaml.safe_dump(params))
    assert cli("report", *options).code == 0
    assert asked == [expected]


def test_a_device_that_is_none_is_refused_before_anything_is_written(
    opened: Bank, cli: Cli
) -> None:
    ran = cli("report", "--device", "gpu")
    assert ran.code == 2
    assert "expected auto, cpu, cuda or cuda:N" in ran.err
    assert not (opened.root / PAGE).exists()


def test_the_matrix_is_shown_where_there_is_one(opened: Bank, cli: Cli) -> None:
    matrix.write_matrix(opened.root, Matrix(steps=steps(("reds", "greens"))))
    ran = cli("report")
    assert (ran.code, ran.err) == (0, "")
    page = PAGE.read_text()
    assert "2 greens@1" in page
    assert ">87.0<" in page


def test_damage_is_told_in_its_place_and_the_rest_is_shown(opened: Bank, cli: Cli) -> None:
    write_matrix(opened.root / "reports" / "matrix.json", "{")
    path = opened.registry.resolve("reds").path / "metrics.json"
    path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    ran = cli("report")
    assert ran.code == 0
    assert "reds: " in ran.err
    assert "metrics.json" in ran.err
    assert "reports/matrix.json is not" in ran.err
    page = PAGE.read_text()
    assert "damaged" in page
    assert '<th scope="row">greens</th>' in page


def test_an_empty_bank_has_a_page(tmp_path: Path, cli: Cli) -> None:
    kept_bank.write_params(tmp_path)
    ran = cli("report", "--bank", tmp_path)
    assert ran.code == 0
    assert "the bank has no router yet" in ran.err
    assert "Next: <code>dvc repro</code>" in (tmp_path / PAGE).read_text()


def test_where_nothing_can_be_written_the_error_says_so(opened: Bank, cli: Cli) -> None:
    (opened.root / "taken").write_text("a file")
    ran = cli("report", "--out", "taken/page.html")
    assert ran.code in {1, 2}
    assert "taken" in ran.err
    assert "Traceback" not in ran.err
