"""The trials of one task's search, each a small JSON file in the storage.

The driver writes a trial's file before the trial starts and when it has ended; the worker keeps
the state of its training beside it. So whatever is killed, the files say what was proposed, what
is done and what is not, and no trial is lost or counted twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from adapterbank.errors import ConflictError, IntegrityError
from adapterbank.reading import read_document
from adapterbank.records import Score
from adapterbank.search.space import Values
from adapterbank.search.storage import Storage

State = Literal["started", "finished", "stopped", "diverged", "failed"]
"""``stopped``: by the scheduler or the clock, before its last epoch."""

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_TRIALS = "trials"
_SEARCH = "search.json"
HEADS = "heads"
"""Folder of what trials of one search start their heads from."""


@checked(frozen=True, kw_only=True, config=_STRICT)
class Point:
    """One epoch of a trial."""

    epoch: int  # from 1
    val: Score
    val_loss: float  # nats
    loss: float  # nats
    seconds: float


@checked(frozen=True, kw_only=True, config=_STRICT)
class Trial:
    """One configuration and what became of it."""

    number: int  # from 0
    values: Values
    state: State = "started"
    points: tuple[Point, ...] = ()
    parameters: int = 0  # of the method, without the head
    latency: float | None = None  # its forward in forwards of the bare backbone
    error: str | None = None

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.state != "started"

    @property
    def score(self) -> float | None:
        """Validation accuracy of its last epoch; 0 of one that diverged, None of none."""
        if self.state in {"diverged", "failed"}:
            return 0.0
        return self.points[-1].val.accuracy if self.points else None


@checked(frozen=True, kw_only=True, config=_STRICT)
class Header:
    """What a search is of, and how far it came."""

    schema: Literal[1] = 1
    task: str
    identity: str
    seconds: float = 0.0  # of wall time, over all its processes
    latencies: dict[str, float] = Field(default_factory=dict)  # measured ones, see Costs
    complete: bool = False


class Ledger:
    """All trials of one task's search.

    Args:
        storage: the search's own folder.
        task: its name.
        identity: of the search; see :func:`adapterbank.bank.plan.search_identity`.

    Raises:
        ConflictError: the storage holds a search with another identity.
        IntegrityError: a file in it is damaged or missing.
    """

    def __init__(self, storage: Storage, task: str, identity: str) -> None:
        self.storage = storage
        self.task = task
        header = storage.read(_SEARCH)
        names = [name for name in storage.names(_TRIALS) if name.endswith(".json")]
        if header is None and names:
            raise self._damaged(f"{_SEARCH}: missing, but there are trials")
        self.header = self._open(header, identity, begun=bool(names))
        self.trials: dict[int, Trial] = {}  # in the order of their numbers
        for number, name in enumerate(names):
            if name != f"{_stem(number)}.json":
                raise self._damaged(f"{_TRIALS}/{_stem(number)}.json: missing")
            trial: Trial = self._parse(Trial, storage.read(f"{_TRIALS}/{name}"), name)
            if trial.number != number:
                raise self._damaged(f"{name}: damaged: it is of trial {trial.number}")
            self.trials[number] = trial

    @property
    def ended(self) -> tuple[Trial, ...]:
        """Trials with nothing left to do."""
        return tuple(trial for trial in self.trials.values() if trial.done)

    def note(self, **changes: Any) -> None:  # noqa: ANN401  # fields of the header
        """Change what stands about the search as a whole."""
        self.header = replace(self.header, **changes)
        self._write(_SEARCH, asdict(self.header))

    def put(self, trial: Trial) -> None:
        """Keep a trial; durable when this returns."""
        self._write(f"{_TRIALS}/{_stem(trial.number)}.json", asdict(trial))
        self.trials[trial.number] = trial

    @staticmethod
    def clear(storage: Storage) -> None:
        """Delete a search and nothing else that the folder may hold.

        The header goes last: a search half deleted is still known for what it is.
        """
        for name in (_TRIALS, HEADS, _SEARCH):
            storage.delete(name)

    def _open(self, data: bytes | None, identity: str, *, begun: bool) -> Header:
        fresh = Header(task=self.task, identity=identity)
        if data is None:
            return fresh
        header: Header = self._parse(Header, data, _SEARCH)
        if (header.task, header.identity) != (self.task, identity):
            if header.task == self.task and not begun:
                return fresh  # one that never started a trial is in nobody's way
            raise ConflictError(
                f"{self.storage.uri} holds a search of {header.task} with other data or settings"
                f" ({header.identity[:12]}, this one is {identity[:12]})",
                fix=f"adapterbank tune {self.task} --fresh, or name another --storage",
            )
        return header

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
        self.storage.write(name, (text + "\n").encode())

    def _parse(self, kind: type[Any], data: bytes | None, name: str) -> Any:  # noqa: ANN401
        try:
            return read_document(data or b"", kind, name)
        except IntegrityError as error:
            raise self._damaged(error.message) from error

    def _damaged(self, what: str) -> IntegrityError:
        return IntegrityError(
            f"{self.storage.uri}/{what}", fix=f"adapterbank tune {self.task} --fresh"
        )


def training_file(number: int) -> str:
    """Name of the file in which a trial keeps the state of its training."""
    return f"{_TRIALS}/{_stem(number)}.safetensors"


def _stem(number: int) -> str:
    return f"{number:05}"
