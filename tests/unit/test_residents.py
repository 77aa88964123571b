"""Versions in memory: loaded once, within a budget, never evicted under a reader."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapterbank.errors import InputError, IntegrityError
from adapterbank.inference.artifact import LoadedAdapter
from adapterbank.inference.residents import Residents
from adapterbank.methods.linear import FoldedLinear
from adapterbank.registry.adapter_config import parse_adapter_config
from tests.registry_samples import config_of

CONFIG = parse_adapter_config(json.dumps(config_of("a-task")).encode())
WAIT_S = 20.0
TENSOR_BYTES = 100


def version(size: int = 1) -> LoadedAdapter:
    """Return a version of 100 bytes, or of some hundreds."""
    folded = FoldedLinear(
        head_weight=torch.zeros(size * 24 + size - 1, 1), head_bias=torch.zeros(1)
    )
    assert folded.nbytes == TENSOR_BYTES * size
    return LoadedAdapter(folded=folded, config=CONFIG, digest="", parameters=(0, 0))


def never() -> LoadedAdapter:
    raise AssertionError("it is in memory already")


def held(residents: Residents, names: str) -> set[str]:
    """Say which of the versions are in memory, changing nothing that matters afterwards."""
    found = set()
    for name in names:
        try:
            with residents.reading(name, never):
                found.add(name)
        except AssertionError:
            continue
    return found


def read(residents: Residents, *names: str) -> None:
    for name in names:
        with residents.reading(name, version):
            pass


def test_the_least_recently_used_goes_first_when_the_budget_is_full() -> None:
    residents = Residents(3 * TENSOR_BYTES)
    read(residents, "a", "b", "c", "a", "d")
    assert held(residents, "abcd") == {"a", "c", "d"}
    assert residents.residency().evictions == 1
    assert residents.residency().nbytes == 3 * TENSOR_BYTES


def test_what_is_being_read_stays_though_it_is_over_the_budget() -> None:
    residents = Residents(TENSOR_BYTES)
    with residents.reading("a", version) as first, residents.reading("b", version):
        assert residents.residency().nbytes == 2 * TENSOR_BYTES
        with residents.reading("a", never) as again:
            assert again is first
        assert not residents.evict("a")
    assert residents.residency().nbytes == TENSOR_BYTES
    assert residents.residency().readers == 0


def test_a_version_larger_than_the_budget_is_there_while_it_is_read() -> None:
    residents = Residents(0)
    with residents.reading("a", version) as loaded:
        assert loaded.folded.nbytes == TENSOR_BYTES
    assert residents.residency().versions == residents.residency().nbytes == 0


def test_a_version_that_is_kept_is_never_evicted() -> None:
    residents = Residents(0)
    kept = residents.keep("a", version)
    read(residents, "b", "c")
    assert not residents.evict("a")
    with residents.reading("a", never) as loaded:
        assert loaded is kept


def test_an_evicted_version_is_loaded_again() -> None:
    residents = Residents()
    read(residents, "a")
    assert residents.evict("a")
    assert not residents.evict("a")
    read(residents, "a")
    assert residents.residency().loads == 2


def test_a_budget_below_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="-1"):
        Residents(-1)


def test_threads_that_want_one_version_load_it_once() -> None:
    residents, together = Residents(), threading.Barrier(8)
    entered = threading.Event()
    loads: list[int] = []

    def load() -> LoadedAdapter:
        loads.append(1)
        entered.wait(0.05)  # the others arrive meanwhile
        assert residents.residency().versions == 0  # not published before it is whole
        return version()

    def ask(_: int) -> LoadedAdapter:
        together.wait(WAIT_S)
        with residents.reading("a", load) as loaded:
            return loaded

    with ThreadPoolExecutor(8) as pool:
        found = set(map(id, pool.map(ask, range(8))))
    assert len(found) == len(loads) == 1
    assert residents.residency().readers == 0


def test_different_versions_load_side_by_side() -> None:
    residents, both = Residents(), threading.Barrier(2)

    def load() -> LoadedAdapter:
        both.wait(WAIT_S)  # breaks unless the other one loads too
        return version()

    def ask(name: str) -> None:
        with residents.reading(name, load):
            pass

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask, "ab"))
    assert residents.residency().loads == 2


def waiting(residents: Residents, fails: type[BaseException]) -> list[BaseException | None]:
    """Let one thread fail to load what a second waits for; say what each of them raised."""
    inside, second = threading.Event(), threading.Event()
    raised: list[BaseException | None] = [None, None]

    def load() -> LoadedAdapter:
        inside.set()
        second.wait(WAIT_S)
        threading.Event().wait(0.05)  # the second is on its way into the wait
        raise fails("as planned")

    def ask(number: int, how: Callable[[], LoadedAdapter]) -> None:
        if number:
            inside.wait(WAIT_S)
            second.set()
        try:
            with residents.reading("a", how):
                pass
        except (IntegrityError, KeyboardInterrupt) as error:
            raised[number] = error

    threads = [threading.Thread(target=ask, args=(i, how)) for i, how in enumerate((load, version))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    return raised


def test_a_failed_load_is_told_to_all_who_wait_and_is_forgotten() -> None:
    residents = Residents()
    first, second = waiting(residents, IntegrityError)
    assert isinstance(first, IntegrityError)
    assert second is first
    read(residents, "a")
    assert residents.residency().loads == 1


def test_who_waits_for_a_load_that_is_interrupted_loads_by_itself() -> None:
    residents = Residents()
    first, second = waiting(residents, KeyboardInterrupt)
    assert isinstance(first, KeyboardInterrupt)
    assert second is None
    assert residents.residency().loads == 1


SIZES = {"a": 1, "b": 2, "c": 3, "d": 1, "e": 2}


@given(
    budget=st.integers(0, 8),
    steps=st.lists(st.lists(st.sampled_from(sorted(SIZES)), max_size=4, unique=True), max_size=12),
)
def test_what_is_resident_is_what_a_plain_list_says(budget: int, steps: list[list[str]]) -> None:
    residents, expected = Residents(budget * TENSOR_BYTES), list[str]()

    def trim(pinned: list[str]) -> None:
        for name in [name for name in expected if name not in pinned]:
            if sum(SIZES[one] for one in expected) > budget:
                expected.remove(name)

    for step in steps:  # each reads some versions at once, as a batch does
        with ExitStack() as readers:
            for index, name in enumerate(step):
                readers.enter_context(residents.reading(name, partial(version, SIZES[name])))
                expected = [*(one for one in expected if one != name), name]
                trim(step[: index + 1])
                assert residents.residency().readers == index + 1
        for count in reversed(range(len(step))):  # they left in the opposite order
            trim(step[:count])
    assert held(residents, "".join(SIZES)) == set(expected)
    assert residents.residency().nbytes == TENSOR_BYTES * sum(SIZES[one] for one in expected)


class Interrupting:
    """A lock after whose first release something else happens, before its holder goes on."""

    def __init__(self, happens: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._happens: Callable[[], None] | None = happens

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        happens, self._happens = self._happens, None
        if happens is not None:
            happens()


def test_a_version_that_lands_right_after_it_was_looked_for_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It hung once: the look-up and taking on the load were two steps."""
    residents = Residents()
    others: list[threading.Thread] = []

    def land() -> None:  # or wait for the load that is now ours
        others.append(threading.Thread(target=read, args=(residents, "a"), daemon=True))
        others[0].start()
        others[0].join(0.2)

    monkeypatch.setattr(residents, "_lock", Interrupting(land))
    asks = threading.Thread(target=read, args=(residents, "a"), daemon=True)
    asks.start()
    asks.join(WAIT_S / 4)
    assert not asks.is_alive()
    others[0].join(WAIT_S)
    assert residents.residency().loads == 1
    assert residents.residency().readers == 0
