"""The gates of a release on a real bank: what is refused, by which test, and what may be forced."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adapterbank.backbones.base import Backbone
from adapterbank.bank.bank import Bank
from adapterbank.bank.features import SplitLogits, adapter_logits
from adapterbank.data.base import Split, TaskData, image_digests
from adapterbank.data.store import load_task
from adapterbank.errors import AdapterBankError, GateRefused, InputError
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.inference.routing import load_router
from adapterbank.integrations.mlflow.mirror import lookup, mirror_alias
from adapterbank.methods.base import Adapter
from adapterbank.pipeline.prepare import prepare
from adapterbank.pipeline.release import ReleaseReport, release
from adapterbank.registry.seen import SEEN, pack_seen, parse_seen
from adapterbank.registry.verdicts import Verdict
from adapterbank.registry.versions import Version
from adapterbank.release.moves import promote, rollback
from adapterbank.routing.record import task_record
from adapterbank.sync.repair import sync
from adapterbank.training.evaluation import extract_frozen
from tests.bank_samples import confuse, republish, sharpen
from tests.cli_samples import PARAMS, Cli
from tests.task_files import save_task

LENIENT = {"max_regression": 1.0}
OTHER = "azures"  # before colours: where two tasks look alike the first by name gets the images


@pytest.fixture
def opened(bank: Path) -> Bank:
    """Return a bank whose champion is the first of two versions of one task."""
    return Bank.open(bank)


def gated(bank: Bank, **gates: float | None) -> Bank:
    params = bank.root / "pipelines" / "params.yaml"
    params.write_text(f"{PARAMS}gates: {json.dumps(gates)}\n")
    return Bank.open(bank.root)


def verdict_on(bank: Bank, task: str = "colours") -> Verdict:
    return {verdict.task: verdict for verdict in release(bank).verdicts}[task]


def tags(bank: Bank, version: Version) -> dict[str, str]:
    shown = lookup(bank.root, version.task).of(version.digest)
    assert shown is not None
    return {
        name.removeprefix("adapterbank.verdict").lstrip("."): value
        for name, value in shown.tags
        if name.startswith("adapterbank.verdict")
    }


def inverted(data: TaskData) -> TaskData:
    """Give the negatives of all images: another task's, with the same labels."""
    splits = {
        name: Split(images=255 - data.split(name).images, labels=data.split(name).labels)
        for name in ("train", "val", "test")
    }
    return TaskData(classes=data.classes, source="negatives", notes="", **splits)


def own_record(bank: Bank, data: TaskData) -> Mapping[str, NDArray[np.generic]]:
    backbone = load_bank_backbone(bank.registry)
    blocks = bank.config.router.recorded(backbone.traits.blocks)
    train, val = (extract_frozen(backbone, data.split(name), blocks) for name in ("train", "val"))
    return task_record(train, data.train.labels, len(data.classes), val, blocks)


def other_task(bank: Bank) -> Version:
    """Add a task of other images with a version that says so, not released yet."""
    spec = bank.registry.backbone().spec
    data = inverted(load_task(bank.data("colours"), spec=spec))
    save_task(data, bank.data(OTHER), spec)
    return republish(bank, "colours@1", sharpen, task=OTHER, routing=own_record(bank, data))


def test_the_verdict_has_the_paired_test_with_all_its_numbers(opened: Bank) -> None:
    republish(opened, "colours@1", confuse)
    verdict = verdict_on(opened)
    found, mine, theirs = verdict.comparison, verdict.challenger_val, verdict.champion_val
    assert found is not None
    assert mine is not None
    assert theirs is not None
    assert (verdict.outcome, verdict.gate, found.test) == ("refused", "max_regression", "mcnemar")
    assert found.gained is not None
    assert found.lost is not None
    assert mine.correct - theirs.correct == found.gained - found.lost < 0
    assert found.interval[0] <= found.difference <= found.interval[1]
    assert found.p <= 0.05
    assert verdict.calibration_error is not None
    assert verdict.bytes == (opened.registry.resolve("colours@3").path
                             / "adapter_model.safetensors").stat().st_size  # fmt: skip
    assert (verdict.latency, verdict.bank) == (None, None)  # nobody asked; it was refused before
    assert opened.registry.history("colours")[-1].verdict == verdict.as_json()


def restated(bank: Bank, ref: str, seen: Iterable[bytes] | None = None, **train: object) -> Version:
    """Register a copy of a version that says something else of what it learned from."""
    files = dict(bank.registry.read(bank.registry.resolve(ref)))
    config = json.loads(files["adapter_config.json"])
    config["train"] |= train
    metrics = json.loads(files["metrics.json"])
    for split in ("val", "test"):
        metrics[split]["correct"] = metrics[split]["total"]  # whatever it answers
    files |= {"adapter_config.json": json.dumps(config).encode(),
              "metrics.json": json.dumps(metrics).encode()}  # fmt: skip
    del files["manifest.json"]
    del files[SEEN]
    if seen is not None:
        files[SEEN] = pack_seen(seen)
    return bank.registry.register(config["task"], files)


@pytest.fixture
def own(opened: Bank) -> Bank:
    """Return the bank with the version of the images that are prepared as its only champion."""
    opened.registry.retire("colours", reason="a test")
    promote(opened, "colours@2", expected=None)
    return opened


def digests(bank: Bank, split: str) -> tuple[bytes, ...]:
    data = load_task(bank.data("colours"), spec=bank.registry.backbone().spec)
    return image_digests(data.split(split).images)


def test_a_version_says_which_images_it_was_trained_on(opened: Bank) -> None:
    files = opened.registry.read(opened.registry.resolve("colours@2"))
    seen = parse_seen(files[SEEN], where="a test")
    assert seen == set(digests(opened, "train"))
    assert len(files[SEEN]) == 16 * len(seen)


@pytest.mark.parametrize("train", [{"fit": "train+val"}, {"search": {"trials": 9}}], ids=str)
@pytest.mark.parametrize("stated", [False, True])
def test_a_version_that_saw_the_validation_images_is_judged_on_test_images(
    own: Bank, train: dict[str, object], stated: bool
) -> None:
    """What its own figures say counts for nothing."""
    wrong = republish(own, "colours@2", confuse)
    restated(own, str(wrong), digests(own, "train") if stated else None, **train)
    verdict = verdict_on(own)
    assert (verdict.outcome, verdict.gate) == ("refused", "max_regression")
    assert verdict.images is not None
    assert (verdict.images.split, verdict.images.seen) == ("test", 0)
    assert verdict.images.unstated == (() if stated else (4,))
    assert verdict.challenger_val is not None
    assert verdict.challenger_val.total == len(digests(own, "test"))
    assert verdict.challenger_val.correct < verdict.challenger_val.total
    assert f"judged on {verdict.images.total} test images" in verdict.reason


def test_a_version_as_good_that_saw_the_validation_images_passes_on_test_images(own: Bank) -> None:
    restated(own, "colours@2", digests(own, "val"))
    verdict = verdict_on(own)
    assert (verdict.outcome, verdict.comparison and verdict.comparison.lost) == ("promoted", 0)
    total = len(digests(own, "test"))
    assert f"judged on {total} test images that none of the versions learned from" in verdict.reason


def swap(adapter: Adapter) -> None:
    """Let the first two classes answer for each other."""
    with torch.no_grad():
        for values in (adapter.head.weight, adapter.head.bias):
            values[:2] = values[:2].flip(0)


def test_who_says_it_saw_what_it_gets_wrong_is_asked_about_that_too(own: Bank) -> None:
    """Judged on the rest alone, it would be right every time."""
    wrong = republish(own, "colours@2", swap)
    val = load_task(own.data("colours"), spec=own.registry.backbone().spec).val
    restated(own, str(wrong), image_digests(val.images[val.labels < 2]))
    verdict = verdict_on(gated(own, min_images=1))
    assert verdict.images is not None
    assert (verdict.images.split, verdict.images.total) == ("val", int((val.labels == 2).sum()))
    assert verdict.comparison is not None
    assert verdict.comparison.lost == 0
    assert verdict.outcome == "refused"
    assert verdict.gate in {"max_regression", "max_drop"}  # of few images
    assert verdict.reason.startswith("on images that it says it learned from too, accuracy 0.")


def test_images_that_the_champion_learned_from_are_set_aside(own: Bank) -> None:
    val = digests(own, "val")
    champion = restated(own, "colours@2", val[:2])
    promote(own, str(champion), expected=2)
    republish(own, "colours@2", sharpen)
    verdict = verdict_on(gated(own, min_images=1))
    assert verdict.images is not None
    found = (verdict.images.split, verdict.images.total, verdict.images.seen)
    assert found == ("val", len(val) - 2, 2)
    assert verdict.champion_val is not None
    assert verdict.champion_val.total == len(val) - 2
    assert "(2 more are set aside)" in verdict.reason


def test_a_champion_of_another_division_of_the_images_has_seen_some_of_them(opened: Bank) -> None:
    params = opened.root / "pipelines" / "params.yaml"
    params.write_text(PARAMS.replace("seed: 1", "seed: 2"))
    opened = Bank.open(opened.root)
    prepare(opened, "colours")
    first = opened.registry.read(opened.registry.resolve("colours@1"))
    seen = parse_seen(first[SEEN], where="a test")
    split = {split: len(seen & set(digests(opened, split))) for split in ("val", "test")}
    republish(opened, "colours@2", sharpen)
    params.write_text(f"{params.read_text()}gates: {{min_images: 1}}\n")
    verdict = verdict_on(Bank.open(opened.root))
    assert verdict.images is not None
    assert verdict.images.seen == split[verdict.images.split] > 0


def test_who_has_seen_all_images_is_not_judged_and_not_served(own: Bank) -> None:
    test = digests(own, "test")
    restated(own, "colours@2", [*digests(own, "val"), *test[3:]])
    verdict = verdict_on(own)
    assert (verdict.outcome, verdict.gate, verdict.comparison) == ("refused", "min_images", None)
    learned = f"{len(test) - 3} of {len(test)} test images"
    assert f"{learned}; 3 are left, 5 needed (gates.min_images)" in verdict.reason
    assert "add images to the data, then dvc repro" in verdict.reason
    assert own.registry.aliases("colours")["champion"] == 2
    assert verdict_on(gated(own, min_images=3)).outcome == "promoted"


def test_a_version_that_answers_no_numbers_is_not_judged_and_stops_no_other(
    own: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    republish(own, "colours@2", sharpen)
    other_task(own)

    def overflow(bank: Bank, backbone: Backbone, task: str, *more: Any) -> SplitLogits:  # noqa: ANN401
        found = adapter_logits(bank, backbone, task, *more)
        return found if task == OTHER else replace(found, logits=found.logits * torch.inf)

    monkeypatch.setattr("adapterbank.release.answers.adapter_logits", overflow)
    reports: list[ReleaseReport] = []
    with pytest.raises(AdapterBankError, match="probabilities that are no numbers for 7 of 7"):
        release(own, show=reports.append)
    outcomes = {verdict.task: verdict.outcome for verdict in reports[0].verdicts}
    assert outcomes == {OTHER: "promoted", "colours": "unjudged"}


def test_small_falls_are_held_against_the_best_champion_there_was(opened: Bank) -> None:
    worse = republish(opened, "colours@1", confuse)
    promote(opened, str(worse), expected=1)  # before anybody judged it
    republish(opened, str(worse), sharpen)
    verdict = verdict_on(opened)
    assert (verdict.outcome, verdict.gate, verdict.best) == ("refused", "max_decline", 1)
    assert verdict.comparison is not None
    assert (verdict.comparison.gained, verdict.comparison.lost) == (0, 0)
    assert verdict.decline is not None
    assert verdict.decline.lost is not None
    assert verdict.decline.lost > 0
    assert "below version 1's, the best champion there was" in verdict.reason
    verdict = verdict_on(gated(opened, max_decline=None))
    assert (verdict.outcome, verdict.best) == ("promoted", None)
    republish(opened, str(worse), confuse)
    assert verdict_on(gated(opened)).best == 1  # it is not forgotten


def test_who_overrules_a_refusal_accepts_what_is_lost(opened: Bank) -> None:
    worse = republish(opened, "colours@1", confuse)
    release(opened)
    promote(opened, str(worse), expected=1, force=True, reason="labels were wrong")
    republish(opened, str(worse), sharpen)
    assert verdict_on(opened).outcome == "promoted"


def test_a_champion_of_before_that_is_gone_is_not_compared_and_named(opened: Bank) -> None:
    second = republish(opened, "colours@1", sharpen)
    release(opened)
    shutil.rmtree(opened.registry.resolve("colours@1").path)
    republish(opened, str(second), confuse)
    verdict = verdict_on(opened)
    assert (verdict.outcome, verdict.gate, verdict.best) == ("refused", "max_regression", 3)
    (skipped,) = verdict.not_judged
    assert skipped.startswith("max_decline: colours@1, a champion before: ")


def renamed(bank: Bank) -> Version:
    """Prepare the same images with another name of a class, and register a version of them."""
    spec = bank.registry.backbone().spec
    data = load_task(bank.data("colours"), spec=spec)
    classes = tuple("red" if name == "rusty red" else name for name in data.classes)
    # In memory: the files that are mapped are about to be replaced.
    splits = {name: Split(images=data.split(name).images.clone(),
                          labels=data.split(name).labels.clone())
              for name in ("train", "val", "test")}  # fmt: skip
    save_task(TaskData(classes=classes, source="photos", notes="", **splits),
              bank.data("colours"), spec)  # fmt: skip
    return republish(bank, "colours@2", sharpen, classes=classes)


def test_other_classes_are_a_verdict_of_their_own(own: Bank) -> None:
    renamed(own)
    data = load_task(own.data("colours"), spec=own.registry.backbone().spec)
    known = int((data.val.labels != data.classes.index("red")).sum())
    verdict = verdict_on(gated(own, min_images=known))
    assert (verdict.outcome, verdict.gate) == ("refused", "accept_classes")
    assert verdict.classes is not None
    assert verdict.classes.renamed == (("rusty red", "red"),)
    assert verdict.comparison is not None
    assert verdict.comparison.total == known < len(data.val)  # of the classes that both know
    assert "it calls rusty red red of version 2" in verdict.reason
    few = verdict_on(gated(own, min_images=known + 1))
    assert (few.gate, few.comparison) == ("accept_classes", None)
    assert f"knows the classes of {known} images only" in few.not_judged[0]
    assert own.registry.aliases("colours") == {"champion": 2}
    accepted = release(Bank.open(own.root), accept_classes=True).verdicts
    assert {verdict.outcome for verdict in accepted} == {"promoted"}


def test_other_classes_are_accepted_by_the_parameters(own: Bank) -> None:
    renamed(own)
    verdict = verdict_on(gated(own, accept_classes=True))
    assert (verdict.outcome, verdict.classes is None) == ("promoted", False)


@pytest.mark.parametrize("judged", [True, False])
def test_other_classes_are_accepted_by_hand(own: Bank, cli: Cli, judged: bool) -> None:
    renamed(own)
    if judged:
        release(own)
    ran = cli("promote", "colours@3")
    assert ran.code == 1
    assert "--accept-classes" in ran.err
    assert own.registry.aliases("colours") == {"champion": 2}
    assert cli("promote", "colours@3", "--accept-classes").code == 0
    event = own.registry.history("colours")[-1]
    assert (event.verdict is not None) == judged
    # What was refused for more than that is not accepted by it.
    republish(own, "colours@3", confuse)
    release(own)
    assert cli("promote", "colours@4", "--accept-classes").code == 1


def test_a_damaged_champion_keeps_nobody_from_serving_another_version(opened: Bank) -> None:
    shutil.rmtree(opened.registry.resolve("colours@1").path)
    assert promote(opened, "colours@2", expected=1).move.moved


def test_only_a_release_accepts_classes(own: Bank, cli: Cli) -> None:
    renamed(own)
    assert cli("stage", "prepare", "colours", "--accept-classes").code == 2
    assert cli("stage", "release", "--accept-classes").code == 0
    assert own.registry.aliases("colours")["champion"] == 3


@pytest.mark.parametrize(
    "gate", ["max_calibration_error", "max_bytes", "max_latency", "min_accuracy"]
)
def test_each_gate_refuses_by_its_name(opened: Bank, gate: str) -> None:
    republish(opened, "colours@1", confuse)
    limits: dict[str, float] = {"max_bytes": 10, "max_latency": 1.0, "min_accuracy": 1.0}
    opened = gated(opened, **LENIENT, **{gate: limits.get(gate, 0.0)})
    if gate == "max_latency":  # an adapter of two prompts may cost less than is measured here
        verdict = verdict_on(opened)
        assert verdict.latency is not None
        assert (verdict.outcome == "refused") == (verdict.latency > 1.0)
        return
    verdict = verdict_on(opened)
    assert (verdict.outcome, verdict.gate) == ("refused", gate)
    assert f"gates.{gate}" in verdict.reason
    assert verdict_on(gated(opened, **LENIENT)).outcome == "promoted"


def test_a_version_that_would_take_another_tasks_images_is_refused(opened: Bank) -> None:
    other_task(opened)
    assert verdict_on(opened, OTHER).outcome == "promoted"
    republish(opened, "colours@1", sharpen, task=OTHER)  # with the record of colours: a twin
    opened = gated(opened, **LENIENT)
    verdict = verdict_on(opened, OTHER)
    assert (verdict.outcome, verdict.gate) == ("refused", "max_routing_drop")
    assert verdict.bank is not None
    worst = verdict.bank.worst
    assert worst is not None
    assert (worst.task, worst.recall.gained) == ("colours", 0)
    assert worst.recall.lost == worst.right[0] - worst.right[1] > 0
    assert (verdict.bank.champions, verdict.bank.judged, verdict.bank.left_out) == (2, 1, 0)
    assert f"{worst.right[1]} of {worst.total} images of colours" in verdict.reason
    before = opened.registry.history(OTHER)
    assert verdict_on(opened, OTHER) == verdict
    assert opened.registry.history(OTHER) == before
    assert verdict_on(gated(opened, max_routing_drop=None), OTHER).outcome == "promoted"


def test_the_task_that_the_router_measures_by_costs_nobody_an_image(opened: Bank) -> None:
    other_task(opened)
    release(opened)
    republish(opened, "colours@1", sharpen, task=OTHER)  # a twin: it would take its images
    assert verdict_on(opened, OTHER).gate == "max_routing_drop"
    params = opened.root / "pipelines" / "params.yaml"
    params.write_text(f"{params.read_text()}router: {{reference: colours@1}}\n")
    isolated = Bank.open(opened.root)
    spec = opened.registry.backbone().spec
    negatives = inverted(load_task(opened.data("colours"), spec=spec))
    republish(isolated, "colours@1", sharpen, routing=own_record(isolated, negatives))
    verdicts = {verdict.task: verdict for verdict in release(isolated).verdicts}
    assert [verdict.outcome for verdict in verdicts.values()] == ["promoted", "promoted"]
    for task, same in ((OTHER, False), ("colours", True)):
        check = verdicts[task].bank  # of no task that could lose an image
        assert check is not None
        assert (check.judged, check.left_out, check.same_router) == (0, 0, same)
    _, router = load_router(isolated.registry)
    assert (router.tasks, router.aside) == ((OTHER,), "colours")


def test_a_refusal_for_the_banks_sake_is_judged_again_when_the_bank_changes(opened: Bank) -> None:
    other_task(opened)
    release(opened)
    republish(opened, "colours@1", sharpen, task=OTHER)
    assert verdict_on(opened, OTHER).outcome == "refused"
    opened.registry.retire("colours", reason="a test")
    assert verdict_on(opened, OTHER).outcome == "promoted"  # nobody is left to lose anything


def test_a_first_version_is_refused_only_where_the_bank_says_so_but_it_is_told(
    opened: Bank,
) -> None:
    spec = opened.registry.backbone().spec
    save_task(load_task(opened.data("colours"), spec=spec), opened.data(OTHER), spec)
    republish(opened, "colours@1", sharpen, task=OTHER)
    strict = gated(opened, max_new_task_drop=0.005)
    verdict = verdict_on(strict, OTHER)
    assert (verdict.outcome, verdict.gate) == ("refused", "max_routing_drop")
    verdict = verdict_on(gated(opened), OTHER)
    assert verdict.outcome == "promoted"
    assert "images of colours" in verdict.reason


def test_tasks_without_images_here_are_left_out_and_counted(opened: Bank) -> None:
    other_task(opened)
    release(opened)
    shutil.rmtree(opened.root / "work" / "colours")
    republish(opened, "colours@1", sharpen, task=OTHER)
    verdict = verdict_on(opened, OTHER)
    assert verdict.outcome == "promoted"
    assert verdict.bank is not None
    assert (verdict.bank.judged, verdict.bank.left_out) == (0, 1)


def test_an_old_refusal_is_judged_again_once_by_the_present_rule(opened: Bank) -> None:
    third = republish(opened, "colours@1", confuse)
    digest = json.loads((opened.data("colours") / "task.json").read_text())["digest"]
    old = {
        "task": "colours", "version": 3, "champion": 1, "outcome": "refused", "reason": "worse",
        "challenger_val": {"correct": 1, "total": 12}, "champion_val": None,
        "gates": {"min_accuracy": 0.0, "max_regression": 0.005}, "data": digest,
    }  # fmt: skip
    opened.registry.record_verdict(str(third), old, reason="worse")
    verdict = verdict_on(opened)
    assert (verdict.outcome, verdict.comparison is None) == ("refused", False)
    steps = len(opened.registry.history("colours"))
    assert verdict_on(opened) == verdict
    assert len(opened.registry.history("colours")) == steps


def test_mlflow_shows_the_last_verdict(opened: Bank) -> None:
    third = republish(opened, "colours@1", confuse)
    verdict = verdict_on(opened)
    assert verdict.comparison is not None
    shown = tags(opened, third)
    assert (shown[""], shown["gate"], shown["test"]) == ("refused", "max_regression", "mcnemar")
    assert float(shown["p"]) == pytest.approx(verdict.comparison.p)
    assert float(shown["difference"]) == pytest.approx(verdict.comparison.difference, abs=1e-6)
    promote(opened, "colours@3", expected=1, reason="it is a test", force=True)
    assert (tags(opened, third)[""], tags(opened, third)["reason"]) == ("forced", "it is a test")


def test_a_refused_version_is_promoted_by_hand_only_by_force_and_for_a_reason(
    opened: Bank,
) -> None:
    republish(opened, "colours@1", confuse)
    refusal = verdict_on(opened)
    with pytest.raises(GateRefused, match="points below the champion's") as caught:
        promote(opened, "colours@3", expected=1, reason="I like it")
    assert caught.value.exit_code == 1
    assert "--force --reason" in str(caught.value.fix)
    with pytest.raises(InputError, match="only for a reason"):
        promote(opened, "colours@3", expected=1, force=True, reason=" ")
    assert opened.registry.aliases("colours") == {"champion": 1}
    refused = opened.registry.history("colours")[-1]
    assert promote(opened, "colours@3", expected=1, force=True, reason="a test").move.moved
    event = opened.registry.history("colours")[-1]
    assert (event.action, event.reason) == ("promote", "a test")
    assert event.verdict is not None
    assert (event.verdict["outcome"], event.verdict["over"]) == ("forced", refused.step)
    assert event.verdict["comparison"] == refusal.as_json()["comparison"]
    # What was overruled once stands no more in the way.
    rollback(opened, "colours")
    assert promote(opened, "colours@3", expected=1).move.moved


def test_a_refused_version_may_be_tried_under_another_alias(opened: Bank) -> None:
    republish(opened, "colours@1", confuse)
    release(opened)
    assert promote(opened, "colours@3", alias="challenger", expected=None).move.moved


def test_adopting_from_mlflow_obeys_the_gate(opened: Bank) -> None:
    third = republish(opened, "colours@1", confuse)
    release(opened)
    mirror_alias(opened.root, "colours", "champion", third.digest)
    report = sync(opened, adopt=True)
    assert report.refused == {1}
    assert "colours@champion was not adopted" in report.failed[0]
    assert opened.registry.aliases("colours") == {"champion": 1}


def test_the_program_says_why_and_takes_force_with_a_reason(opened: Bank, cli: Cli) -> None:
    republish(opened, "colours@1", confuse)
    release(opened)
    ran = cli("promote", "colours@3")
    assert ran.code == 1
    assert "was refused at" in ran.err
    assert cli("promote", "colours@3", "--force").code == 2
    told = cli("history", "colours").out
    assert "refused by" in told
    assert "mcnemar" in told
    assert cli("promote", "colours@3", "--force", "--reason", "a test").code == 0
    assert "forced by" in cli("history", "colours").out
