"""Loaded versions in memory: within a byte budget, loaded once, never evicted under a reader.

What is kept is a version's folded tensors, by digest. There is no second, stacked copy for batches
of many tasks: gathering a batch's rows from the versions themselves takes as long as gathering
them from one large tensor, and that tensor would double the memory, have to grow, and be written
to while it is read. So to swap a version in or out is to set or delete one entry of a dictionary.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from adapterbank.errors import AdapterBankError, InputError
from adapterbank.inference.artifact import LoadedAdapter

RESIDENT_BYTES = 2 * 2**30
"""Default budget: 2 GiB, about 7,800 VAPT adapters of ten prompts for a ViT-S at 84 px."""


@dataclass(frozen=True, kw_only=True)
class Residency:
    """What is in memory now, and what happened so far."""

    versions: int
    nbytes: int
    budget_bytes: int
    readers: int  # of all versions together
    loads: int
    evictions: int


@dataclass(kw_only=True)
class _Entry:
    loaded: LoadedAdapter
    readers: int = 0
    kept: bool = False

    @property
    def nbytes(self) -> int:
        return self.loaded.folded.nbytes


@dataclass(kw_only=True)
class _Flight:
    """A load that is under way; others who want the version wait for it."""

    landed: threading.Event = field(default_factory=threading.Event)
    error: AdapterBankError | None = None


class Residents:
    """Versions by digest. Any number of threads may use one.

    Versions that nobody reads are evicted, the least recently used first, while all together take
    more than the budget. Those in use stay, so the budget is exceeded where a single batch needs
    more; it is kept again when the batch ends.

    Args:
        budget_bytes: for the tensors of all versions together.

    Raises:
        InputError: the budget is negative, or no number.
    """

    def __init__(self, budget_bytes: int = RESIDENT_BYTES) -> None:
        if type(budget_bytes) not in {int, float} or not budget_bytes >= 0:  # also NaN
            raise InputError(f"expected a budget of 0 bytes or more, got {budget_bytes!r}")
        self._budget_bytes = budget_bytes
        self._lock = threading.Lock()  # held for bookkeeping only, never while a version loads
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # the least recently used first
        self._flights: dict[str, _Flight] = {}
        self._nbytes = 0
        self._loads = 0
        self._evictions = 0

    @contextmanager
    def reading(self, digest: str, load: Callable[[], LoadedAdapter]) -> Iterator[LoadedAdapter]:
        """Pin a version while the block runs.

        Args:
            digest: of the version.
            load: makes it, if it is not in memory. Of threads that ask for one version at once a
                single one calls it; different versions load side by side. It is published only
                when it is whole; an error reaches all who waited for it, and is not kept.

        Yields:
            The version, complete and verified by ``load``.
        """
        entry = self._enter(digest, load)
        try:
            yield entry.loaded
        finally:
            with self._lock:
                entry.readers -= 1
                self._evict()

    def keep(self, digest: str, load: Callable[[], LoadedAdapter]) -> LoadedAdapter:
        """Load a version as :meth:`reading` does and never evict it: it could not be read again."""
        with self.reading(digest, load):
            entry = self._entries[digest]
            entry.kept = True
            return entry.loaded

    def evict(self, digest: str) -> bool:
        """Forget a version now, if nobody reads it; say whether it was forgotten."""
        with self._lock:
            entry = self._entries.get(digest)
            if entry is None or entry.readers or entry.kept:
                return False
            self._drop(digest)
            return True

    def residency(self) -> Residency:
        """Count, at one moment."""
        with self._lock:
            return Residency(
                versions=len(self._entries),
                nbytes=self._nbytes,
                budget_bytes=self._budget_bytes,
                readers=sum(entry.readers for entry in self._entries.values()),
                loads=self._loads,
                evictions=self._evictions,
            )

    def _enter(self, digest: str, load: Callable[[], LoadedAdapter]) -> _Entry:
        """Pin a version that is in memory, or load it, or wait for who does and look again."""
        while True:
            with self._lock:
                entry = self._entries.get(digest)
                if entry is not None:
                    entry.readers += 1
                    self._entries.move_to_end(digest)
                    return entry
                flight = self._flights.get(digest)
                if mine := flight is None:
                    flight = self._flights[digest] = _Flight()
            if mine:
                return self._lead(digest, flight, load)
            flight.landed.wait()
            if flight.error is not None:
                raise flight.error

    def _lead(self, digest: str, flight: _Flight, load: Callable[[], LoadedAdapter]) -> _Entry:
        entry = None
        try:
            entry = _Entry(loaded=load(), readers=1)
        except AdapterBankError as error:
            flight.error = error
            raise
        finally:  # also after an interrupt: who waited then tries by itself
            with self._lock:
                del self._flights[digest]
                if entry is not None:
                    self._entries[digest] = entry
                    self._nbytes += entry.nbytes
                    self._loads += 1
                    self._evict()
            flight.landed.set()
        return entry

    def _evict(self) -> None:
        while self._nbytes > self._budget_bytes:
            idle = (
                key for key, entry in self._entries.items() if not (entry.readers or entry.kept)
            )
            oldest = next(idle, None)
            if oldest is None:
                return
            self._drop(oldest)

    def _drop(self, digest: str) -> None:
        self._nbytes -= self._entries.pop(digest).nbytes
        self._evictions += 1
