"""How far work has come, in a log and in a terminal."""

from __future__ import annotations

from contextlib import closing

import pytest

from adapterbank.cli.progress import Bar, TrainingView, bar
from adapterbank.records import Score
from adapterbank.training.sinks import Epoch


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def drive(shown: Bar, clock: Clock, seconds: range, total: int = 20) -> None:
    """Do one thing a second."""
    for second in seconds:
        clock.now = float(second)
        shown(second - seconds.start, total)


def epoch(number: int) -> Epoch:
    return Epoch(
        number=number,
        loss=0.5,
        train=Score(correct=8, total=10),
        val=Score(correct=3, total=4),
        val_loss=0.6,
        rate=1.0,
        seconds=1.5,
    )


def test_a_log_gets_a_line_after_two_seconds_and_then_every_five(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    drive(Bar("Counting", clock=clock), clock, range(9))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["Counting: 2/20, 18.0 s left", "Counting: 7/20, 13.0 s left"]


def test_a_second_round_has_its_own_pace(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    shown = Bar("Counting", clock=clock)
    drive(shown, clock, range(4))
    drive(shown, clock, range(100, 102))
    assert capsys.readouterr().err.splitlines()[1:] == ["Counting: 0/20"]
    drive(shown, clock, range(200, 206), total=8)
    assert capsys.readouterr().err.splitlines() == ["Counting: 0/8", "Counting: 5/8, 3.0 s left"]


def test_short_work_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("Counting") as shown:
        shown(1, 2)
        shown(2, 2)
    assert capsys.readouterr() == ("", "")


def test_a_quiet_log_gets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    shown = Bar("Counting", quiet=True, clock=clock)
    drive(shown, clock, range(9))
    shown.say("a line")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_a_bar_with_lines_above_it_even_where_a_log_is_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "xterm")
    clock = Clock()
    shown = Bar("Counting [1]", quiet=True, clock=clock)
    drive(shown, clock, range(9))
    shown.say("[red]a line")
    shown.close()
    shown.close()  # once is enough
    out, err = capsys.readouterr()
    assert out == ""
    assert "Counting [1]" in err
    assert "[red]a line" in err
    assert "8/20" in err


def test_epochs_are_told_at_most_once_a_second_and_the_last_always(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    started = list[float]()
    with closing(TrainingView("Training", 11, clock=clock)) as view:
        view.on_start = lambda: started.append(clock.now)
        for number, now in ((1, 0.0), (2, 0.5), (3, 1.2), (11, 1.4)):
            clock.now = now
            view.step(number, 11)
            view.epoch(epoch(number))
    assert started == [0.0]
    assert capsys.readouterr().err.splitlines() == [
        f"epoch {number:>2}/11  loss 0.5000  train 80.0%  val 75.0%  1.5 s" for number in (1, 3, 11)
    ]
