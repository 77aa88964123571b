"""Advice on windows of drawn images."""

from __future__ import annotations

import numpy as np
import pytest

from adapterbank.drift.windows import Advice, HeldOut, Images, Settings, Window, judge
from adapterbank.errors import InputError

TASK = "mine"
QUICK = Settings(window=40, permutations=399)


def reference(held: int = 60, *, confidence: bool = True) -> HeldOut:
    """Draw held-out images."""
    generator = np.random.default_rng(0)
    return HeldOut(
        features=generator.standard_normal((held, 8)),
        familiarity=generator.standard_normal(held),
        confidence=generator.uniform(0.8, 1.0, 80) if confidence else None,
    )


def images(
    count: int,
    *,
    shift: float = 0.0,
    sure: float = 0.9,
    tasks: tuple[str, ...] = (TASK,),
    seed: int = 1,
) -> Images:
    """Draw new images that have moved by as much, with the tasks that a router finds in turn."""
    generator = np.random.default_rng(seed)
    return Images(
        features=generator.standard_normal((count, 8)) + shift,
        familiarity=generator.standard_normal(count) - shift,
        confidence=generator.uniform(sure - 0.1, sure + 0.1, count),
        tasks=[tasks[index % len(tasks)] for index in range(count)],
    )


def joined(*parts: Images) -> Images:
    """Put images one after another."""
    return Images(
        features=np.concatenate([part.features for part in parts]),
        familiarity=np.concatenate([part.familiarity for part in parts]),
        confidence=np.concatenate([part.confidence for part in parts]),
        tasks=[task for part in parts for task in part.tasks],
    )


def judged(
    new: Images, settings: Settings = QUICK, *, confidence: bool = True
) -> tuple[tuple[Window, ...], Advice]:
    """Judge against the usual reference."""
    return judge(TASK, reference(confidence=confidence), new, settings)


def test_images_that_have_not_changed_raise_no_alarm() -> None:
    windows, advice = judged(images(205))
    assert len(windows) == 5  # five images are left over
    assert advice.action == "none"
    assert advice.alarmed == ()
    assert (advice.abstained, advice.elsewhere) == (0.0, {})


@pytest.mark.parametrize(
    ("sure", "tasks", "action"),
    [
        (0.9, (TASK,), "recalibrate"),
        (0.6, (TASK,), "retrain"),
        (0.6, (TASK, "", ""), "new task"),
        (0.9, (TASK, "other", "other", "other"), "other task"),
        (0.6, (TASK, "one", "other", "other"), "new task"),
        (0.6, (TASK, TASK, TASK, "one", "other"), "retrain"),
        (0.9, (TASK, TASK, ""), "recalibrate"),
    ],
)
def test_what_to_do_follows_from_what_moved(
    sure: float, tasks: tuple[str, ...], action: str
) -> None:
    windows, advice = judged(images(120, shift=1.0, sure=sure, tasks=tasks))
    assert advice.action == action
    assert advice.alarmed == (0, 1, 2)
    assert advice.confidence == pytest.approx(sure, abs=0.02)
    for window in windows:
        assert window.findings["features"].moved
        assert window.findings["familiarity"].moved
        assert window.findings["confidence"].moved == (sure < 0.8)


def test_one_window_of_many_is_no_alarm_and_two_in_a_row_are() -> None:
    same, moved = images(40, seed=3), images(40, shift=1.0, seed=4)
    _, advice = judged(joined(same, moved, same, moved))
    assert (advice.action, advice.alarmed) == ("none", ())
    windows, advice = judged(joined(same, moved, moved, same, moved))
    assert [window.moved for window in windows] == [False, True, True, False, True]
    assert (advice.action, advice.alarmed) == ("recalibrate", (1, 2))


def test_the_only_window_is_judged_alone() -> None:
    _, advice = judged(images(79, shift=1.0))
    assert (advice.action, advice.alarmed) == ("recalibrate", (0,))


def test_a_fall_of_confidence_alone_is_an_alarm() -> None:
    windows, advice = judged(images(80, sure=0.5))
    assert advice.action == "retrain"
    assert not windows[0].findings["features"].moved
    assert windows[0].findings["confidence"].effect == pytest.approx(0.4, abs=0.03)


def test_without_usual_confidence_there_is_no_such_test_and_nothing_is_retrained() -> None:
    windows, advice = judged(images(80, shift=1.0, sure=0.5), confidence=False)
    assert list(windows[0].findings) == ["features", "familiarity"]
    assert advice.action == "recalibrate"


def test_a_small_effect_is_no_alarm_however_small_its_p_value() -> None:
    new = images(80, shift=1.0, sure=0.5)
    blind = Settings(
        window=40, permutations=399, least_shift=9.0, least_distance=1.1, least_fall=1.1
    )
    windows, advice = judged(new, blind)
    assert windows[0].findings["features"].adjusted <= 0.01
    assert advice.action == "none"


def test_equal_images_give_equal_advice() -> None:
    assert judged(images(80, shift=0.3)) == judged(images(80, shift=0.3))


def test_shares_are_of_the_windows_that_raised_the_alarm() -> None:
    quiet = images(80, seed=3)
    loud = images(80, shift=1.0, tasks=(TASK, "", "b", TASK), seed=4)
    _, advice = judged(joined(quiet, loud))
    assert advice.alarmed == (2, 3)
    assert (advice.abstained, advice.elsewhere) == (0.25, {"b": 0.25})
    assert advice.action == "recalibrate"


def test_shares_that_are_exactly_what_is_asked_for_are_enough() -> None:
    """As floats 0.7 and 0.1 are less than 0.8."""
    names = ("",) * 7 + ("b",) + (TASK,) * 2
    limits = Settings(window=40, permutations=399, most=0.9, most_elsewhere=0.8)
    _, advice = judged(images(80, shift=1.0, tasks=names), limits)
    assert (advice.abstained, advice.elsewhere) == (0.7, {"b": 0.1})
    assert advice.action == "new task"


def test_too_few_images_are_refused_with_what_to_type() -> None:
    with pytest.raises(InputError, match="39 images are no window of 40") as caught:
        judged(images(39))
    assert "--window 39" in str(caught.value)
    with pytest.raises(InputError, match="mine keeps 19 held-out images"):
        judge(TASK, reference(19), images(40), QUICK)


@pytest.mark.parametrize(
    "wrong", [{"window": 19}, {"alpha": 0.0}, {"alpha": 1.0}, {"permutations": 298}]
)
def test_settings_by_which_nothing_can_be_judged_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Settings(**wrong)  # type: ignore[arg-type]
    assert Settings(permutations=299).alpha == 0.01
