"""Training from what a search found, and what makes a search another one."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from adapterbank.bank.bank import Bank
from adapterbank.bank.plan import (
    Budget,
    Winner,
    plan_of,
    search_identity,
    write_pinned,
    write_winner,
)
from adapterbank.data.base import image_digests
from adapterbank.data.store import load_task
from adapterbank.errors import AdapterBankError, InputError
from adapterbank.pipeline import release as releasing
from adapterbank.pipeline.prepare import prepare
from adapterbank.records import Score
from adapterbank.registry.seen import SEEN, parse_seen
from tests.cli_samples import PARAMS, Cli
from tests.search_trials import TASK, configure, refuse, searched


def write_found(bank: Bank, **changes: object) -> Winner:
    plain: dict[str, object] = {
        "task": TASK,
        "identity": search_identity(bank, TASK),
        "trial": 7,
        "values": {"prompts": 3, "learning_rate": 0.02},
        "val": Score(correct=11, total=12),
        "budget": Budget(sampler="random", scheduler="asha", trials=8, epochs=20),
    }
    winner = Winner(**(plain | changes))  # type: ignore[arg-type]
    write_winner(bank, winner)
    return winner


def test_training_takes_the_winner_up_on_all_images_with_the_trials_figures(
    searching: Bank, cli: Cli
) -> None:
    write_found(searching)
    trained = cli("train", TASK)
    assert trained.code == 0, trained
    assert "as trial 7 of its search, on training and validation images" in trained.err
    val = json.loads((searching.trained(TASK) / "val.json").read_text())["val"]
    assert (val["correct"], val["total"]) == (11, 12)
    assert "trial 7, the best of 8 trials" in val["by"]
    assert "the best of 8 trials" in trained.out
    assert cli("evaluate", TASK, "--trained").code == 0
    assert cli("register", f"work/{TASK}/version").code == 0
    registry = searching.registry
    version = registry.resolve(f"{TASK}@3")
    config = json.loads(registry.read(version)["adapter_config.json"])
    assert config["method"]["hyper"]["prompts"] == 3
    assert (config["train"]["learning_rate"], config["train"]["fit"]) == (0.02, "train+val")
    assert config["train"]["search"] == {
        "sampler": "random", "scheduler": "asha", "trials": 8, "epochs": 20
    }  # fmt: skip
    metrics = json.loads(registry.read(version)["metrics.json"])
    assert (metrics["val"]["correct"], metrics["val"]["total"]) == (11, 12)

    data = load_task(searching.data(TASK))
    seen = parse_seen(registry.read(version)[SEEN], where="a test")
    learned = (*image_digests(data.train.images), *image_digests(data.val.images))
    assert seen == set(learned)
    assert "best of 8 trials" in cli("show", f"{TASK}@3").out
    assert "best of 8 trials" in registry.read(version)["README.md"].decode()

    # Judged on images that chose nothing and that it was not trained on.
    reports: list[releasing.ReleaseReport] = []
    with suppress(AdapterBankError):  # the champion may be better
        releasing.release(searching, show=reports.append)
    (report,) = reports
    (verdict,) = report.verdicts
    assert verdict.images is not None
    assert (verdict.images.split, verdict.images.total) == ("test", len(data.test))
    assert verdict.challenger_val is not None
    assert verdict.challenger_val.correct == metrics["test"]["correct"]
    assert verdict.comparison is not None
    assert verdict.comparison.test == "mcnemar"


def test_a_task_may_keep_its_winner_from_the_validation_images(searching: Bank, cli: Cli) -> None:
    for text in (
        searched(**{"batch_size: 8}": "batch_size: 8, fit: train}"}),
        searched(hyper="    hyper: {rank: 2, kernel: 1}\n    train: {fit: train}\n"),
    ):
        bank = configure(searching.root, text)
        write_found(bank)
        plan = plan_of(bank, TASK)
        assert (plan.refit, plan.training.learning_rate) == (False, 0.02)
    assert cli("train", TASK).code == 0
    val = json.loads((searching.trained(TASK) / "val.json").read_text())["val"]
    data = load_task(searching.data(TASK))
    assert val["total"] == len(data.val)
    assert "the best of 8 trials" in val["by"]
    seen = parse_seen((searching.trained(TASK) / SEEN).read_bytes(), where="a test")
    assert seen >= set(image_digests(data.val.images))  # they chose


@pytest.mark.usefixtures("searching")
def test_training_by_hand_before_any_search_says_how_to_search(cli: Cli) -> None:
    refuse(cli("train", TASK), 2, "best.json: not there yet", "adapterbank tune colours")


def damage_found(text: str) -> Callable[[Bank], None]:
    def damage(bank: Bank) -> None:
        write_found(bank)
        path = bank.note(TASK, "best.json")
        old, new = text.split(" -> ")
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return damage


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda bank: write_pinned(bank, TASK), "written without a search"),
        (lambda bank: write_found(bank, identity="2" * 64), "other data or settings"),
        (damage_found("{ -> "), "not JSON"),
        (damage_found('"trial": 7 -> "trial": "x"'), "not valid: trial"),
        (damage_found('"trial": 7 -> "trial": 7, "more": 1'), "not valid: more"),
        (damage_found('"learning_rate": 0.02 -> "learning_rate": -1.0'), "damaged: learning_rate"),
        (damage_found('"learning_rate": 0.02 -> "learning_rate": NaN'), "not JSON"),
        (damage_found('"learning_rate": 0.02 -> "learning_rate": "fast"'), "damaged"),
    ],
)
def test_a_winner_that_cannot_be_taken_up_is_refused_saying_how_to_search(
    searching: Bank, cli: Cli, make: Callable[[Bank], None], said: str
) -> None:
    make(searching)
    with pytest.raises(InputError, match=r"best\.json"):
        plan_of(searching, TASK)
    refuse(cli("train", TASK), 2, said, "adapterbank tune colours")


def test_without_a_search_training_uses_what_it_is_given(bank: Path) -> None:
    plan = plan_of(Bank.open(bank), TASK)
    assert (plan.hyper, plan.winner, plan.refit) == (
        {"prompts": 2, "rank": 2, "kernel": 1}, None, False
    )  # fmt: skip
    seen = PARAMS.replace("batch_size: 8}", "batch_size: 8, fit: train+val}")
    with pytest.raises(InputError, match="leaves no image to judge by"):
        plan_of(configure(bank, seen), TASK)


DECIDING = {
    "sampler": {"sampler: random": "sampler: optuna"},
    "scheduler": {"trials: 2": "trials: 2, scheduler: none"},
    "trials": {"trials: 2": "trials: 3"},
    "minutes": {"trials: 2": "trials: 2, minutes: 9.0"},
    "seed of the search": {"trials: 2": "trials: 2, seed: 5"},
    "space": {"prompts: [2, 3]": "prompts: [2, 4]"},
    "order of the names": {
        "prompts: [2, 3], learning_rate: {low: 0.001, high: 0.1, log: true}": (
            "learning_rate: {low: 0.001, high: 0.1, log: true}, prompts: [2, 3]"
        ),
    },
    "order of the space": {"prompts: [2, 3]": "prompts: [3, 2]"},
    "range": {"high: 0.1": "high: 0.2"},
    "batch": {"batch_size: 8": "batch_size: 4"},
    "seed of the task": {"seed: 1": "seed: 3"},
}
NOT_DECIDING = {
    "cpus": {"trials: 2": "trials: 2, cpus_per_trial: 2.0"},
    "gpus": {"trials: 2": "trials: 2, gpus_per_trial: 0.5"},
    "concurrent": {"trials: 2": "trials: 2, max_concurrent: 3"},
    "device": {"batch_size: 8": "batch_size: 8, device: cpu"},
    "fit": {"batch_size: 8": "batch_size: 8, fit: train"},
    "a default said": {"trials: 2": "trials: 2, reduction: 3"},
}


def test_all_that_decides_what_a_search_finds_makes_it_another(searching: Bank) -> None:
    before = search_identity(searching, TASK)

    def changed(changes: dict[str, str], hyper: str = "    hyper: {rank: 2, kernel: 1}\n") -> bool:
        bank = configure(searching.root, searched(hyper=hyper, **changes))
        return search_identity(bank, TASK) != before

    assert {name for name, change in DECIDING.items() if not changed(change)} == set()
    assert changed({}, hyper="    hyper: {rank: 3, kernel: 1}\n")
    assert {name for name, change in NOT_DECIDING.items() if changed(change)} == set()


def test_other_images_make_it_another_search(searching: Bank) -> None:
    before = search_identity(searching, TASK)
    bank = configure(searching.root, searched(**{"test: 12}": "test: 6}"}))
    prepare(bank, TASK)
    assert search_identity(bank, TASK) != before
