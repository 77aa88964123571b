"""A new adapter that may start from another task's: chosen, compared, recorded, resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load as load_tensors

from adapterbank.bank.bank import Bank
from adapterbank.errors import ConfigError, InputError, TrainingDiverged, UnknownName
from adapterbank.inference.artifact import ADAPTER_MODEL
from adapterbank.integrations.mlflow.store import open_client
from adapterbank.pipeline import warm_start
from adapterbank.pipeline.arm import Arm
from adapterbank.pipeline.evaluate import evaluate
from adapterbank.pipeline.prepare import prepare
from adapterbank.pipeline.register import register
from adapterbank.pipeline.train import train
from adapterbank.training.loop import TrainResult
from adapterbank.training.sinks import Epoch
from tests.cli_samples import PARAMS, Cli, draw

TASK = "shades"
PARENT = "colours"
SHADES = {"dark": (90, 90, 20), "light": (200, 200, 120)}
OWN_HYPER = "hyper: {prompts: 2, rank: 2, kernel: 1} # of shades"
MORE = """
  shades:
    data: shades
    hyper: {prompts: 2, rank: 2, kernel: 1} # of shades
    train: {epochs: 3}
    warm_start: %s
"""


def configured(root: Path, asked: str, **changes: str) -> Bank:
    """Give the bank a second task that asks for a warm start."""
    text = PARAMS + MORE % asked
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (root / "pipelines" / "params.yaml").write_text(text)
    return Bank.open(root)


@pytest.fixture
def second(bank: Path) -> Path:
    """Return a bank with images of a second task, which was never trained."""
    for index, (name, colour) in enumerate(SHADES.items()):
        for number in range(16):
            draw(bank / TASK / name / f"{number:02}.png", colour, 900 + 100 * index + number)
    prepare(configured(bank, "none"), TASK)
    return bank


def files_of(bank: Bank) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bank.trained(TASK).iterdir()}


def reports(bank: Bank) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((bank.trained(TASK) / "val.json").read_text())
    return dict(told["warm_start"])


def favour(monkeypatch: pytest.MonkeyPatch, *, warm: bool) -> None:
    """Let one arm be the better, whatever it answers."""
    monkeypatch.setattr(warm_start, "is_better", lambda _warm, _scratch: warm)


class Interrupting:
    """A sink that stands for Ctrl-C in the n-th epoch that it is told of, of both arms."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def step(self, done: int, total: int) -> None:
        """Nothing."""

    def epoch(self, epoch: Epoch) -> None:
        assert epoch.number >= 1
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_without_asking_a_version_is_what_it_was(second: Path) -> None:
    bank = configured(second, "none")
    result = train(bank, TASK)
    assert "warm_start" not in result
    assert "warm_start" not in json.loads((bank.trained(TASK) / "val.json").read_text())
    assert json.loads((bank.trained(TASK) / "adapter_config.json").read_text())["parents"] == []


@pytest.mark.parametrize("asked", ["auto", PARENT, f"{PARENT}@2"])
def test_both_arms_are_trained_and_the_better_one_is_kept(second: Path, asked: str) -> None:
    plain = configured(second, "none")
    train(plain, TASK)
    scratch = files_of(plain)
    bank = configured(second, asked)
    result = train(bank, TASK)
    report = reports(bank)
    parent = bank.registry.resolve(PARENT if asked == "auto" else asked)
    assert result["warm_start"] == report
    assert report["asked"] == asked
    assert report["parent"] == {"ref": str(parent), "digest": parent.digest}
    assert report["gain"] == pytest.approx(
        (report["warm"]["correct"] - report["scratch"]["correct"]) / report["warm"]["total"],
        abs=1e-6,
    )
    assert 0.0 < report["h_score"]["bare"] <= 1.0
    config = json.loads(files_of(bank)["adapter_config.json"])
    if report["warm"]["correct"] > report["scratch"]["correct"]:
        assert (report["chosen"], result["val"]) == ("warm", report["warm"])
        assert config["parents"] == [f"{PARENT}@sha256:{parent.digest}"]
    else:  # a tie is the scratch arm's, to the bit
        assert (report["chosen"], result["val"]) == ("scratch", report["scratch"])
        assert config["parents"] == []
        assert files_of(bank)[ADAPTER_MODEL] == scratch[ADAPTER_MODEL]
    assert not bank.checkpoint(TASK).exists()


def test_the_child_is_registered_with_its_parent_and_shows_it(
    second: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    favour(monkeypatch, warm=True)
    bank = configured(second, "auto")
    before = {path: path.read_bytes() for path in (bank.root / "registry").rglob("*.safetensors")}
    ran = cli("train", TASK)
    assert ran.code == 0
    assert f"now from {PARENT}@1" in ran.err
    assert "warm is kept" in ran.out
    evaluate(bank, TASK)
    version = register(bank, TASK)
    parent = bank.registry.resolve(PARENT)
    shown = json.loads(cli("show", str(version), "--json").out)
    assert shown["config"]["parents"] == [f"{PARENT}@sha256:{parent.digest}"]
    assert shown["metrics"]["warm_start"]["chosen"] == "warm"
    assert f"from {PARENT}@1" in cli("show", str(version)).out
    assert {path: path.read_bytes() for path in before} == before  # the parent is as it was
    run_id = json.loads(bank.note(TASK, "run.json").read_text())["run_id"]
    run = open_client(bank.root).get_run(run_id)
    assert run.data.tags["adapterbank.parent"] == f"{PARENT}@1 sha256:{parent.digest}"
    assert {"train/loss", "warm/train/loss", "transfer/gain_pp", "transfer/h_score"} <= set(
        run.data.metrics
    )


def test_the_child_starts_from_copies_of_its_parent_s_tensors_but_the_head(second: Path) -> None:
    bank = configured(second, "auto")
    arm = Arm.of(bank, TASK)
    child = arm.child(bank, "x")
    head = child.adapter.head.weight.detach().clone()
    parent = load_tensors(bank.registry.read(bank.registry.resolve(PARENT))[ADAPTER_MODEL])
    parent |= {"base": parent["base"][:, :1], "head.weight": head + 1}  # of another, of its shape
    copied = warm_start.copy_tensors(child.adapter, parent)
    state = child.adapter.state_dict()
    assert "alpha" in copied
    assert not {"base", "head.weight", "head.bias"} & set(copied)
    for name in copied:
        assert state[name].equal(parent[name])
        assert state[name].data_ptr() != parent[name].data_ptr()
    assert child.adapter.head.weight.equal(head)
    assert not arm.adapter.state_dict()["alpha"].equal(parent["alpha"])


@pytest.mark.parametrize("epochs", [1, 3, 4, 6])
def test_killed_in_either_arm_it_ends_with_the_bytes_of_one_that_was_not(
    second: Path, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    favour(monkeypatch, warm=True)
    bank = configured(second, "auto")
    train(bank, TASK)
    whole = files_of(bank)
    shutil.rmtree(bank.trained(TASK))
    with pytest.raises(KeyboardInterrupt):
        train(bank, TASK, sinks=(Interrupting(epochs),))
    told: list[str] = []
    train(bank, TASK, note=told.append)
    assert files_of(bank) == whole
    finished = "All 3 epochs are done: finishing"
    assert [line for line in told if "epoch" in line] == {
        1: ["Continuing at epoch 2 of 3"],
        3: [finished],
        4: [finished, "Continuing at epoch 2 of 3"],
        6: [finished, finished],
    }[epochs]
    assert not bank.checkpoint(TASK).exists()


def test_another_parent_is_another_training(second: Path) -> None:
    bank = configured(second, "auto")
    with pytest.raises(KeyboardInterrupt):
        train(bank, TASK, sinks=(Interrupting(4),))
    bank.registry.promote(f"{PARENT}@2", expected=1)
    told: list[str] = []
    train(bank, TASK, note=told.append)
    assert reports(bank)["parent"]["ref"] == f"{PARENT}@2"
    assert any("other data, settings or code: starting from the beginning" in t for t in told)
    assert "All 3 epochs are done: finishing" in told  # the arm from scratch is what it was


def test_an_arm_that_diverges_leaves_the_one_from_scratch(
    second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = configured(second, "auto")
    real = Arm.train

    def diverging(arm: Arm, *args: Any) -> TrainResult:  # noqa: ANN401  # as it is called
        if arm.config.parents:
            raise TrainingDiverged("the loss is nan")
        return real(arm, *args)

    monkeypatch.setattr(Arm, "train", diverging)
    told: list[str] = []
    result = train(bank, TASK, note=told.append)
    assert (result["warm_start"]["warm"], result["warm_start"]["chosen"]) == (None, "scratch")
    assert any("the loss is nan" in line for line in told)


def test_where_no_champion_fits_it_is_trained_from_scratch_and_says_so(
    second: Path, cli: Cli
) -> None:
    bank = configured(second, "auto", **{OWN_HYPER: OWN_HYPER.replace("prompts: 2", "prompts: 3")})
    ran = cli("train", TASK)
    assert ran.code == 0
    assert "warm start: none: no champion has the same method and shapes" in ran.out
    assert reports(bank)["parent"] is None
    ranked = cli("transfer", "rank", TASK)
    assert "No champion" in ranked.out
    assert f"{PARENT} is left out: its hyper-parameters give other shapes" in ranked.err


def test_the_ranking_names_the_parent_that_auto_takes(second: Path, cli: Cli) -> None:
    bank = configured(second, "auto")
    found = json.loads(cli("transfer", "rank", TASK, "--json").out)
    train(bank, TASK)
    report = reports(bank)
    (only,) = found["candidates"]
    assert found["parent"] == {k: only[k] for k in ("task", "version", "digest")}
    assert report["parent"]["digest"] == only["digest"]
    assert report["distance"] == pytest.approx(only["distance"], abs=1e-6)
    assert report["h_score"]["adapted"] == pytest.approx(only["h_score"], abs=1e-6)
    assert report["h_score"]["bare"] == pytest.approx(found["bare"], abs=1e-6)
    text = cli("transfer", "rank", TASK).out
    assert f"{PARENT}@1" in text
    assert "backbone alone" in text
    none = json.loads(cli("transfer", "rank", PARENT, "--json").out)
    assert (none["candidates"], none["parent"]) == ([], None)  # shades has no champion


def test_a_parent_nobody_knows_is_named_before_anything_is_trained(second: Path) -> None:
    with pytest.raises(UnknownName, match="'nothing'"):
        train(configured(second, "nothing@3"), TASK, sinks=(Interrupting(1),))


def test_a_parent_of_another_method_is_refused(second: Path) -> None:
    bank = configured(second, PARENT, **{OWN_HYPER: "method: vpt_deep"})
    with pytest.raises(InputError, match="is a vapt adapter, this task's is vpt_deep"):
        train(bank, TASK, sinks=(Interrupting(1),))


def test_an_earlier_version_of_the_task_on_other_data_is_refused(second: Path) -> None:
    bank = configured(second, "none")
    train(bank, TASK)
    evaluate(bank, TASK)
    register(bank, TASK)
    again = configured(second, f"{TASK}@1")
    assert train(again, TASK)["warm_start"]["parent"]["ref"] == f"{TASK}@1"  # on the same data
    other = configured(second, f"{TASK}@1", **{"train: {epochs: 3}": "seed: 9"})
    prepare(other, TASK)
    with pytest.raises(InputError, match="may hold its validation images"):
        train(other, TASK, sinks=(Interrupting(1),))


def test_a_search_that_fits_to_validation_images_is_no_company(second: Path) -> None:
    searching = {"train: {epochs: 1, batch_size: 8}": "train: {epochs: 1}\n    search: {trials: 2}"}
    with pytest.raises(ConfigError, match=r"tasks\.shades\.warm_start: chooses by"):
        configured(second, "auto", **searching)
    fitted = {"train: {epochs: 3}": "train: {epochs: 3, fit: train}"}
    assert configured(second, "auto", **searching, **fitted).config.task(TASK).warm_start == "auto"


def test_what_is_no_reference_is_no_warm_start(second: Path) -> None:
    with pytest.raises(ConfigError, match=r"tasks\.shades\.warm_start: expected none, auto or"):
        configured(second, "'colours@'")
