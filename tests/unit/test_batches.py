"""Images are decoded a batch ahead of who uses them: in order, and never more than two batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from adapterbank.data.batches import DECODERS, in_batches

WAIT_S = 30.0  # of a machine that is busy; nothing here takes as long


class Gate:
    """A decoder of numbers that notes what was begun and can be held up."""

    def __init__(self) -> None:
        self.begun = [threading.Event() for _ in range(100)]
        self.open = threading.Event()
        self.open.set()

    def decode(self, number: int) -> int:
        self.begun[number].set()
        assert self.open.wait(WAIT_S)
        return number * number

    @property
    def count(self) -> int:
        """How many were begun, some time after nothing more happens."""
        time.sleep(0.05)
        return sum(event.is_set() for event in self.begun)


def decoders() -> list[str]:
    """Names of the threads that decode."""
    return [t.name for t in threading.enumerate() if t.name.startswith("decode")]


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize(("count", "size"), [(0, 3), (1, 3), (3, 3), (10, 3), (10, 1), (4, 100)])
def test_results_come_in_order_and_in_batches(count: int, size: int, *, ahead: bool) -> None:
    found = list(in_batches(lambda number: number * number, range(count), size, ahead=ahead))
    assert [result for batch in found for result in batch] == [i * i for i in range(count)]
    assert [len(batch) for batch in found] == [size] * (count // size) + [count % size] * bool(
        count % size
    )
    assert decoders() == []


def test_the_next_batch_is_decoded_while_one_is_used_and_no_other() -> None:
    gate = Gate()
    batches = in_batches(gate.decode, range(20), 4)
    assert next(batches) == [0, 1, 4, 9]
    assert all(event.wait(WAIT_S) for event in gate.begun[4:8])  # nobody asked for them
    assert gate.count == 8
    assert next(batches) == [16, 25, 36, 49]
    assert gate.begun[11].wait(WAIT_S)
    assert gate.count == 12
    batches.close()


def test_without_looking_ahead_items_are_taken_only_when_asked_for() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(6):
            taken.append(number)
            yield number

    batches = in_batches(lambda number: number, items(), 2, ahead=False)
    assert (next(batches), taken) == ([0, 1], [0, 1])
    assert (next(batches), taken) == ([2, 3], [0, 1, 2, 3])


def test_closing_early_stops_the_threads_and_decodes_nothing_more() -> None:
    gate = Gate()
    batches = in_batches(gate.decode, range(100), 40)
    next(batches)
    gate.open.clear()
    begun = gate.count
    threading.Timer(0.1, gate.open.set).start()  # those under way are waited for
    batches.close()
    assert gate.count <= begun + DECODERS
    assert gate.count < 80
    assert decoders() == []


def test_an_error_of_a_decoder_reaches_the_caller_and_stops_the_threads() -> None:
    def decode(number: int) -> int:
        if number == 5:
            raise ZeroDivisionError
        return number

    batches = in_batches(decode, range(20), 4)
    assert next(batches) == [0, 1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        next(batches)
    assert decoders() == []
