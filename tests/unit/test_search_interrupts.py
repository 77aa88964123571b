"""Interrupts are held back until they can be answered, and are never lost."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from adapterbank.search.interrupts import Interrupts

_KINDS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}
each_signal = pytest.mark.parametrize("number", _KINDS)


@pytest.fixture(autouse=True)
def _answered() -> Iterator[None]:
    """Answer each signal with its exception; all is put back after the test."""

    def answer(number: int, _: object) -> None:
        raise _KINDS[signal.Signals(number)]

    before = {number: signal.signal(number, answer) for number in _KINDS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@each_signal
def test_an_interrupt_is_answered_when_it_is_asked_for(number: signal.Signals) -> None:
    interrupts, answer = Interrupts(), signal.getsignal(number)
    with interrupts.hold():
        interrupts.check()
        signal.raise_signal(number)
        with pytest.raises(_KINDS[number]):
            interrupts.check()
        interrupts.check()  # once
    assert signal.getsignal(number) is answer


@each_signal
def test_a_second_one_gets_through_at_once(number: signal.Signals) -> None:
    interrupts = Interrupts()
    with interrupts.hold():
        signal.raise_signal(number)
        with pytest.raises(_KINDS[number]):
            signal.raise_signal(number)
        with pytest.raises(_KINDS[number]):
            interrupts.check()


@each_signal
def test_one_that_nobody_asked_for_is_answered_at_the_end(number: signal.Signals) -> None:
    reached = list[bool]()
    with pytest.raises(_KINDS[number]):
        _raise_held(number, lambda: reached.append(True))
    assert reached


def test_what_the_block_raises_comes_first() -> None:
    with pytest.raises(ZeroDivisionError):
        _raise_held(signal.SIGINT, lambda: 1 // 0)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Interrupts().hold():
        signal.raise_signal(signal.SIGTERM)


def _raise_held(number: signal.Signals, then: Callable[[], object]) -> None:
    with Interrupts().hold():
        signal.raise_signal(number)
        then()
