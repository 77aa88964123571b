"""The gates of a release on a real bank: what is refused, by which test, and what may be forced."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from adapterbank.bank.bank import Bank
from adapterbank.data.base import Split, TaskData
from adapterbank.data.store import load_task
from adapterbank.errors import GateRefused, InputError
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.inference.routing import load_router
from adapterbank.integrations.mlflow.mirror import lookup, mirror_alias
from adapterbank.pipeline.release import release
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


def test_versions_that_saw_the_images_are_compared_by_counts(opened: Bank) -> None:
    # The second version is of the images that are prepared.
    files = dict(opened.registry.read(opened.registry.resolve("colours@2")))
    config = json.loads(files["adapter_config.json"])
    config["train"]["fit"] = "train+val"
    metrics = json.loads(files["metrics.json"])
    metrics["val"] |= {"correct": 0}
    files |= {"adapter_config.json": json.dumps(config).encode(),
              "metrics.json": json.dumps(metrics).encode()}  # fmt: skip
    del files["manifest.json"]
    opened.registry.register("colours", files)
    verdict = verdict_on(gated(opened, max_calibration_error=0.0))
    assert verdict.comparison is not None
    assert (verdict.comparison.test, verdict.comparison.lost) == ("fisher", None)
    assert verdict.challenger_val is not None
    assert verdict.challenger_val.correct == 0
    assert (verdict.gate, verdict.calibration_error) == ("max_regression", None)
    assert [text.split(":")[0] for text in verdict.not_judged] == ["max_calibration_error"]


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
