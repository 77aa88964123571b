"""Verdicts are kept as JSON, read back as they were, also those of before, and told in short."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from adapterbank.records import Score
from adapterbank.registry.task_record import Event
from adapterbank.registry.verdicts import (
    BankCheck,
    ClassChange,
    Comparison,
    JudgedOn,
    RoutedTask,
    Verdict,
    last_verdict,
    parse_verdict,
    past_champions,
    standing_refusal,
    verdict_tags,
)

COMPARISON = Comparison(
    test="mcnemar", p=0.0123, difference=-0.025, interval=(-0.05, -0.001), gained=2, lost=7,
    total=200,
)  # fmt: skip
ROUTED = RoutedTask(
    task="pets",
    total=80,
    recall=COMPARISON,
    right=(80, 78),
    adjusted=0.04,
)
VERDICT = Verdict(
    task="dtd",
    version=3,
    champion=1,
    outcome="refused",
    reason="it is worse",
    images=JudgedOn(split="test", total=200, seen=3, unstated=(1,)),
    classes=ClassChange(added=("a",), removed=(), renamed=(("b", "c"),)),
    best=2,
    decline=COMPARISON,
    calibration_interval=(0.01, 0.07),
    challenger_val=Score(correct=1, total=2),
    champion_val=Score(correct=2, total=2),
    gates={"min_accuracy": 0.0, "max_bytes": None, "accept_classes": False},
    data="ab",
    gate="max_regression",
    comparison=COMPARISON,
    calibration_error=0.04,
    bytes=1000,
    latency=1.1,
    bank=BankCheck(champions=4, judged=3, left_out=1, worst=ROUTED, terms="cd"),
    not_judged=("overlap: published",),
)
# As releases wrote them before there were paired tests.
OLD: dict[str, Any] = {
    "task": "dtd",
    "version": 3,
    "champion": 1,
    "outcome": "refused",
    "reason": "accuracy 0.5000 is more than 0.0050 below the champion's 1.0000 on the same images",
    "challenger_val": {"correct": 1, "total": 2},
    "champion_val": {"correct": 2, "total": 2},
    "gates": {"min_accuracy": 0.0, "max_regression": 0.005},
    "data": "ab",
}


# As releases wrote it before versions said which images they learned from.
SEEN_BEFORE: dict[str, Any] = {
    **OLD, "outcome": "promoted", "gate": None, "comparison": {
        "test": "fisher", "p": 0.5, "difference": 0.1, "interval": [-0.1, 0.3], "gained": None,
        "lost": None,
    },
    "calibration_error": None, "bytes": 10, "latency": None, "not_judged": ["a: b"],
    "bank": {
        "champions": 1, "same_router": False, "judged": 1, "left_out": 0, "terms": "ab",
        "worst": {
            "task": "pets", "total": 80, "right": [80, 78], "abstained": [4, 5],
            "p_abstained": 0.5, "alpha": 0.05, "recall": {
                "test": "mcnemar", "p": 0.5, "difference": -0.025, "interval": [-0.1, 0.1],
                "gained": 0, "lost": 2,
            },
        },
    },
}  # fmt: skip


def event(step: int, action: str, version: int | None, verdict: dict[str, Any] | None) -> Event:
    return Event(
        step=step,
        action=action,
        alias=None,
        from_version=None,
        to_version=version,
        digest="0" * 64,
        actor="a test",
        reason="",
        time="2026-01-01T00:00:00Z",
        verdict=verdict,
    )


def test_a_verdict_comes_back_from_its_file_as_it_was() -> None:
    written = json.loads(json.dumps(VERDICT.as_json()))
    assert written == VERDICT.as_json()
    assert parse_verdict(written) == VERDICT


def test_a_verdict_of_an_old_history_is_read() -> None:
    verdict = parse_verdict(OLD)
    assert verdict is not None
    assert (verdict.outcome, verdict.comparison, verdict.bank) == ("refused", None, None)
    assert verdict.gates == OLD["gates"]


def test_a_verdict_by_counts_and_with_abstentions_is_read() -> None:
    verdict = parse_verdict(SEEN_BEFORE)
    assert verdict is not None
    assert (verdict.images, verdict.best, verdict.calibration_interval) == (None, None, None)
    assert verdict.bank is not None
    assert verdict.bank.worst is not None
    assert (verdict.bank.worst.abstained, verdict.bank.worst.adjusted) == ((4, 5), None)
    assert verdict.short() == "promoted: +10.0 points [-10.0, +30.0], p 0.5 (fisher)"


def moved(step: int, action: str, version: int | None, **verdict: Any) -> Event:  # noqa: ANN401
    """Make an event of the champion's; its verdict has a best, or an outcome, if any."""
    plain = {**OLD, "outcome": "promoted", **verdict} if verdict else None
    return replace(event(step, action, version, plain), alias="champion")


@pytest.mark.parametrize(
    ("history", "numbers"),
    [
        ((), ()),
        ((event(1, "register", 1, None),), ()),
        ((moved(1, "promote", 1),), (1,)),
        # The verdict that promoted 4 says which was the best of 1 and 2.
        ((moved(1, "promote", 1), moved(2, "promote", 2), moved(3, "promote", 4, best=1),
          moved(4, "promote", 5)), (1, 4, 5)),
        ((moved(1, "promote", 1), moved(2, "promote", 2, best=1), moved(3, "promote", 3, best=2)),
         (2, 3)),
        # What was rolled back, or removed with its task, is no bar.
        ((moved(1, "promote", 1), moved(2, "promote", 2), moved(3, "rollback", 1)), (1,)),
        ((moved(1, "promote", 1), moved(2, "retire", None), moved(3, "promote", 2)), (2,)),
        # A person accepted what was lost.
        ((moved(1, "promote", 1), moved(2, "promote", 2, outcome="forced"),
          moved(3, "promote", 3)), (2, 3)),
        # The present one is the last, whenever else it was served.
        ((moved(1, "promote", 1), moved(2, "promote", 2), moved(3, "promote", 1)), (2, 1)),
        ((moved(1, "promote", 1), replace(moved(2, "promote", 2), alias="trial")), (1,)),
    ],
)  # fmt: skip
def test_the_champions_to_hold_a_version_against(
    history: tuple[Event, ...], numbers: tuple[int, ...]
) -> None:
    assert past_champions(history) == numbers


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (JudgedOn(split="val", total=20, seen=0), []),
        (
            JudgedOn(split="val", total=20, seen=4),
            ["20 validation images", "(4 more are set aside)"],
        ),
        (
            JudgedOn(split="test", total=20, seen=0, unstated=(2, 1)),
            ["20 test images", "; what versions 2 and 1 learned from is not stated"],
        ),
    ],
)
def test_what_was_judged_on_is_told_where_it_is_not_all_validation_images(
    images: JudgedOn, told: list[str]
) -> None:
    found = images.told()
    assert bool(found) == bool(told)
    assert [part for part in told if part not in found] == []
    assert "20 are left, 30 needed" in images.told(30)


@pytest.mark.parametrize("content", [None, {}, {"outcome": "refused", "accuracy": 0.25}])
def test_what_no_release_wrote_is_no_verdict(content: dict[str, Any] | None) -> None:
    assert parse_verdict(content) is None


def test_the_last_verdict_on_a_version_counts() -> None:
    history = (
        event(1, "refuse", 3, VERDICT.as_json()),
        event(2, "promote", 2, VERDICT.as_json()),
        event(3, "promote", 3, None),  # an alias of another name, by hand
    )
    refused = last_verdict(history, 3)
    assert refused is not None
    assert refused.step == 1
    assert standing_refusal(history, 3) == refused
    assert standing_refusal(history, 2) is None
    assert standing_refusal((*history, event(4, "promote", 3, {"outcome": "forced"})), 3) is None
    assert last_verdict(history, 1) is None


def test_a_refusal_that_no_release_wrote_stands_as_well() -> None:
    assert standing_refusal((event(1, "refuse", 3, {"accuracy": 0.2}),), 3) is not None


def test_mlflow_is_shown_the_outcome_and_the_figures() -> None:
    tags = verdict_tags((event(1, "refuse", 3, VERDICT.as_json()),), 3)
    assert tags == {
        "adapterbank.verdict": "refused",
        "adapterbank.verdict.reason": "it is worse",
        "adapterbank.verdict.gate": "max_regression",
        "adapterbank.verdict.test": "mcnemar",
        "adapterbank.verdict.p": "0.0123",
        "adapterbank.verdict.difference": "-0.025000",
        "adapterbank.verdict.interval": "-0.050000 -0.001000",
    }
    plain = Verdict(task="dtd", version=3, champion=None, outcome="promoted", reason="passed")
    later = verdict_tags((event(1, "promote", 3, plain.as_json()),), 3)
    assert later.keys() == tags.keys()  # so that no figure of an earlier verdict stays
    assert later["adapterbank.verdict.p"] == "none"
    assert verdict_tags((), 3) == {}


def test_a_table_tells_the_figures_of_the_comparison_that_refused() -> None:
    most = replace(COMPARISON, difference=-0.1, interval=(-0.2, -0.05))
    told = replace(VERDICT, gate="max_decline", decline=most).short()
    assert told.startswith("refused by max_decline: -10.0 points [-20.0, -5.0]")


def test_a_table_tells_the_figures_in_one_line() -> None:
    told = VERDICT.short()
    assert told == "refused by max_regression: -2.5 points [-5.0, -0.1], p 0.012 (mcnemar)"
    assert parse_verdict(OLD).short() == "refused"  # type: ignore[union-attr]
