"""Release: what is served changes only to something as good, on a bank that is sound."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from adapterbank.bank.bank import RELEASE_REPORT, Bank
from adapterbank.errors import AdapterBankError, CanaryMismatch, ConflictError, IntegrityError
from adapterbank.integrations.mlflow.mirror import lookup
from adapterbank.pipeline.release import ReleaseReport, release
from adapterbank.registry.aliases import ANY
from adapterbank.registry.store import Registry
from adapterbank.registry.verdicts import Verdict
from adapterbank.registry.versions import Version
from adapterbank.release import moves
from adapterbank.release.moves import promote, rollback
from tests.bank_samples import confuse, damage, republish, sharpen
from tests.cli_samples import PARAMS, Cli
from tests.task_files import restate

GATES = "gates: {{min_accuracy: {}, max_regression: {}}}\n"


@pytest.fixture
def opened(bank: Path) -> Bank:
    """Return a bank whose champion is the first of two versions of one task."""
    return Bank.open(bank)


def gated(bank: Bank, minimum: float, regression: float) -> Bank:
    params = bank.root / "pipelines" / "params.yaml"
    params.write_text(PARAMS + GATES.format(minimum, regression))
    return Bank.open(bank.root)


def second_task(bank: Bank) -> Version:
    """Add a task, ``tints``, that has one version and no champion."""
    shutil.copytree(bank.data("colours"), bank.data("tints"))
    return republish(bank, "colours@1", sharpen, task="tints")


def champions(bank: Bank) -> dict[str, int | None]:
    registry = bank.registry
    return {task: registry.aliases(task).get("champion") for task in registry.tasks()}


def failing(bank: Bank, *named: str) -> tuple[Verdict, ...]:
    """Release, expect the failure to name something, and return the verdicts all the same."""
    reports: list[ReleaseReport] = []
    with pytest.raises(AdapterBankError) as caught:
        release(bank, show=reports.append)
    assert caught.value.exit_code == 1
    assert [name for name in named if name not in caught.value.message] == []
    (report,) = reports
    written = json.loads((bank.root / RELEASE_REPORT).read_text())
    assert written == {"verdicts": [verdict.as_json() for verdict in report.verdicts]}
    return report.verdicts


def only(verdicts: tuple[Verdict, ...]) -> Verdict:
    (verdict,) = verdicts
    return verdict


def shown(bank: Bank, task: str = "colours") -> dict[str, str | None]:
    """MLflow's aliases, by digest."""
    return {alias: version.digest for alias, version in lookup(bank.root, task).aliases}


def test_a_challenger_as_good_is_promoted_and_mirrored(opened: Bank) -> None:
    told: list[tuple[int, int]] = []
    republish(opened, "colours@1", sharpen)  # the same answers, so the same accuracy
    verdict = only(release(opened, lambda *progress: told.append(progress)).verdicts)
    assert (verdict.outcome, verdict.champion, verdict.version) == ("promoted", 1, 3)
    assert verdict.challenger_val == verdict.champion_val
    assert champions(opened) == {"colours": 3}
    assert told == [(1, 1)]
    versions = opened.registry.versions("colours")
    assert shown(opened) == {"champion": versions[2].digest, "previous": versions[0].digest}


def test_the_verdict_is_kept_in_history_and_in_the_report(opened: Bank) -> None:
    republish(opened, "colours@1", sharpen)
    verdict = only(release(opened).verdicts)
    event = opened.registry.history("colours")[-1]
    assert (event.action, event.reason) == ("promote", "release")
    assert event.verdict == verdict.as_json()
    written = json.loads((opened.root / RELEASE_REPORT).read_text())
    assert written == {"verdicts": [verdict.as_json()]}


def test_releasing_again_changes_nothing(opened: Bank) -> None:
    republish(opened, "colours@1", sharpen)
    release(opened)
    before = opened.registry.history("colours")
    assert only(release(opened).verdicts).outcome == "unchanged"
    assert opened.registry.history("colours") == before


def test_a_worse_challenger_is_refused_with_the_numbers(opened: Bank) -> None:
    republish(opened, "colours@1", confuse)
    report = release(opened)
    verdict = only(report.refused)
    challenger, champion = verdict.challenger_val, verdict.champion_val
    assert challenger is not None
    assert champion is not None
    assert challenger.accuracy < champion.accuracy
    for number in (challenger.accuracy, champion.accuracy):
        assert f"{number:.4f}" in verdict.reason
    assert champions(opened) == {"colours": 1}
    assert shown(opened)["champion"] == opened.registry.resolve("colours@1").digest


def test_a_regression_within_the_gate_is_accepted(opened: Bank) -> None:
    republish(opened, "colours@1", confuse)
    verdict = only(release(gated(opened, 0.0, 1.0)).verdicts)
    assert (verdict.outcome, champions(opened)) == ("promoted", {"colours": 3})


def test_an_accuracy_below_the_threshold_is_refused_even_without_a_champion(opened: Bank) -> None:
    republish(opened, "colours@1", confuse, task="tints")
    shutil.copytree(opened.data("colours"), opened.data("tints"))
    report = release(gated(opened, 0.9, 1.0))
    verdict = report.verdicts[1]
    assert (verdict.task, verdict.outcome, verdict.champion) == ("tints", "refused", None)
    assert "gates.min_accuracy 0.9000" in verdict.reason
    assert champions(opened)["tints"] is None


def test_the_first_version_of_a_task_is_promoted(opened: Bank) -> None:
    second_task(opened)
    verdict = release(opened).verdicts[1]
    assert (verdict.task, verdict.outcome, verdict.champion_val) == ("tints", "promoted", None)
    assert champions(opened)["tints"] == 1


def test_a_version_that_was_rolled_back_stays_back(opened: Bank) -> None:
    republish(opened, "colours@1", sharpen)
    release(opened)
    rollback(opened, "colours", reason="it was too sure of itself")
    verdict = only(release(opened).verdicts)
    assert (verdict.outcome, champions(opened)) == ("kept", {"colours": 1})


def test_nothing_is_released_on_top_of_a_damaged_champion(opened: Bank) -> None:
    second_task(opened)
    republish(opened, "colours@1", sharpen)
    damage(opened.registry.resolve("colours").path / "adapter_model.safetensors")
    before = {task: opened.registry.history(task) for task in opened.registry.tasks()}
    match = "nothing was released: colours@champion is not sound"
    with pytest.raises(IntegrityError, match=match) as caught:
        release(opened)
    assert "adapter_model.safetensors" in caught.value.message
    assert str(caught.value).count("To mend it") == 1
    assert caught.value.exit_code == 4
    assert {task: opened.registry.history(task) for task in opened.registry.tasks()} == before


def test_nothing_is_released_on_another_backbone(opened: Bank) -> None:
    second_task(opened)
    damage(opened.registry.backbone_weights)
    with pytest.raises(IntegrityError, match="fingerprint"):
        release(opened)
    assert champions(opened) == {"colours": 1, "tints": None}


def test_a_damaged_challenger_is_not_judged_but_the_other_tasks_are_judged(opened: Bank) -> None:
    second_task(opened)
    challenger = republish(opened, "colours@1", sharpen)
    damage(challenger.path / "adapter_model.safetensors")
    colours, tints = failing(opened, "colours", "adapter_model.safetensors")
    assert (colours.outcome, tints.outcome) == ("unjudged", "promoted")
    assert "adapter_model.safetensors" in colours.reason
    assert champions(opened) == {"colours": 1, "tints": 1}


def test_a_task_without_prepared_data_cannot_be_judged_and_stops_no_other(opened: Bank) -> None:
    second_task(opened)
    republish(opened, "colours@1", sharpen)
    shutil.rmtree(opened.root / "work" / "colours")
    before = opened.registry.history("colours")
    colours, tints = failing(opened, "colours", "no prepared task here")
    assert (colours.outcome, tints.outcome) == ("unjudged", "promoted")
    assert opened.registry.history("colours") == before


def test_a_task_that_left_the_parameters_stops_no_release(opened: Bank) -> None:
    second_task(opened)
    shutil.rmtree(opened.root / "work" / "tints")
    verdict = release(opened).verdicts[1]
    assert (verdict.outcome, champions(opened)["tints"]) == ("kept", None)
    assert "pipelines/params.yaml" in verdict.reason


def test_a_refusal_is_kept_in_history_and_not_judged_again(opened: Bank) -> None:
    challenger = republish(opened, "colours@1", confuse)
    verdict = only(release(opened).verdicts)
    event = opened.registry.history("colours")[-1]
    assert (event.action, event.digest, event.reason) == (
        "refuse", challenger.digest, verdict.reason,
    )  # fmt: skip
    assert event.verdict == verdict.as_json()
    damage(challenger.path / "adapter_model.safetensors")  # reading it would be an error
    assert only(release(opened).verdicts) == verdict
    assert opened.registry.history("colours")[-1] == event


@pytest.mark.parametrize("change", ["gates", "data", "champion"])
def test_a_refused_version_is_judged_again_on_other_terms(opened: Bank, change: str) -> None:
    republish(opened, "colours@1", confuse)
    release(opened)
    if change == "gates":
        opened = gated(opened, 0.01, 0.0)
    elif change == "data":
        restate(opened.data("colours"), digest="0" * 64)
    else:
        promote(opened, "colours@2", expected=1)
    before = len(opened.registry.history("colours"))
    release(opened)
    assert opened.registry.history("colours")[-1].action == "refuse"
    assert len(opened.registry.history("colours")) == before + 1


def test_a_mirror_that_fails_stops_no_verdict_and_is_named(
    opened: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_task(opened)
    republish(opened, "colours@1", sharpen)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "unknown://anything")
    colours, tints = failing(opened, "colours", "tints", "unknown://anything")
    assert (colours.outcome, tints.outcome) == ("promoted", "promoted")
    assert champions(opened) == {"colours": 3, "tints": 1}
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert {v.outcome for v in release(opened).verdicts} == {"unchanged"}
    assert shown(opened)["champion"] == opened.registry.resolve("colours@3").digest
    assert shown(opened, "tints")["champion"] == opened.registry.resolve("tints@1").digest


def test_the_stage_shows_the_verdicts_and_fails_where_one_is_missing(
    opened: Bank, cli: Cli
) -> None:
    republish(opened, "colours@1", confuse)
    assert cli("stage", "release").code == 0  # a refusal is an answer
    republish(opened, "colours@1", sharpen)
    shutil.rmtree(opened.root / "work" / "colours")
    ran = cli("stage", "release")
    assert ran.code == 1
    assert "unjudged" in ran.out
    assert "colours" in ran.err
    assert ran.err.count("To mend it") == 1


def test_a_challenger_of_other_classes_is_refused(opened: Bank) -> None:
    republish(opened, "colours@1", sharpen, classes=("a", "b", "c"))
    verdict = only(release(opened).verdicts)
    assert verdict.outcome == "refused"
    assert "classes" in verdict.reason
    assert champions(opened) == {"colours": 1}


def test_a_promotion_by_hand_moves_the_alias_everywhere(opened: Bank) -> None:
    done = promote(opened, "colours@2", expected=1, reason="I looked at it")
    move = done.move
    assert done.mirror is None
    assert (move.moved, move.before, move.after.version) == (True, 1, 2)
    assert opened.registry.history("colours")[-1].reason == "I looked at it"
    assert shown(opened)["champion"] == opened.registry.resolve("colours@2").digest


def test_a_promotion_by_hand_is_refused_where_the_champion_is_another(opened: Bank) -> None:
    with pytest.raises(ConflictError):
        promote(opened, "colours@2", expected=None)
    assert champions(opened) == {"colours": 1}


def test_what_is_promoted_by_hand_is_what_was_checked(
    opened: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, read = opened.registry, Registry.read
    third = republish(opened, "colours@1", sharpen)
    registry.promote("colours@2", alias="challenger", expected=None)
    versions: list[int] = []

    def meddle(self: Registry, version: Version) -> dict[str, bytes]:
        versions.append(version.version)
        if len(versions) == 1:
            registry.promote(str(third), alias="challenger", expected=ANY)
        return read(self, version)

    monkeypatch.setattr(Registry, "read", meddle)
    monkeypatch.setattr(moves, "follow_aliases", lambda *_: None)
    assert promote(opened, "colours@challenger", expected=1).move.after.version == 2
    assert versions == [2, third.version]  # once each: what was loaded is what was checked


def test_a_version_with_a_false_canary_is_not_promoted_by_anybody(opened: Bank) -> None:
    registry = opened.registry
    files = registry.read(registry.resolve("colours@1"))
    files |= {
        name: registry.read(republish(opened, "colours@1", confuse))[name]
        for name in ("canary.safetensors",)
    }
    del files["manifest.json"]
    false = registry.register("colours", files)
    with pytest.raises(CanaryMismatch):
        promote(opened, str(false), expected=ANY)
    assert only(failing(opened, "colours", "canary")).version == false.version
    assert champions(opened) == {"colours": 1}


def test_a_rollback_takes_mlflows_aliases_back_as_well(opened: Bank) -> None:
    first, second = opened.registry.versions("colours")
    promote(opened, "colours@2", expected=1)
    assert shown(opened) == {"champion": second.digest, "previous": first.digest}
    rollback(opened, "colours")
    assert shown(opened) == {"champion": first.digest}  # as in the registry, no previous is left
    assert opened.registry.aliases("colours") == {"champion": 1}
