"""Trials, ledgers and costs of searches, made by hand: nothing here trains or starts Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from adapterbank.bank.bank import Bank
from adapterbank.config.search import Range, Space
from adapterbank.records import Score
from adapterbank.search.ledger import Ledger, Point, State, Trial
from adapterbank.search.samplers import Sampler, Told
from adapterbank.search.space import Values
from adapterbank.search.storage import Storage
from tests.cli_samples import PARAMS, Ran

VAL = 100  # validation images
IDENTITY = "1" * 64

MIXED: Space = {
    "prompts": (2, 4, 8, 16),
    "rank": Range(low=1, high=6, integer=True),
    "learning_rate": Range(low=1e-3, high=1e-1, log=True),
    "activation": ("relu", "gelu"),
}
LISTS: Space = {
    "prompts": (2, 4, 8, 16),
    "rank": (1, 2, 3, 4),
    "learning_rate": (0.01, 0.1),
}


def point(epoch: int, correct: int) -> Point:
    """One epoch that answered so many of the validation images right."""
    return Point(
        epoch=epoch, val=Score(correct=correct, total=VAL), val_loss=1.0, loss=1.0, seconds=0.5
    )


def ended(  # all that tells trials apart
    number: int,
    correct: Sequence[int],
    *,
    values: Mapping[str, Any] | None = None,
    state: State = "finished",
    parameters: int = 100,
    latency: float | None = 1.0,
    error: str | None = None,
) -> Trial:
    """A trial with its right answers after each epoch."""
    return Trial(
        number=number,
        values=dict({"learning_rate": 0.1} if values is None else values),
        state=state,
        points=tuple(point(epoch, n) for epoch, n in enumerate(correct, start=1)),
        parameters=parameters,
        latency=latency,
        error=error,
    )


@st.composite
def trials(draw: st.DrawFn) -> list[Trial]:
    """Any search's trials, of few values, so that many are equal in something."""
    drawn = draw(
        st.lists(
            st.tuples(
                st.lists(st.integers(0, 4), max_size=3),
                st.sampled_from([None, 0.1, 0.2, 0.3]),
                st.sampled_from([10, 20, 30]),
                st.sampled_from([1.0, 1.5]),
                st.booleans(),
            ),
            max_size=12,
        )
    )
    return [
        ended(
            number,
            correct,
            values={} if rate is None else {"learning_rate": rate},
            state="diverged" if bad else "finished",
            parameters=parameters,
            latency=latency,
            error="training diverged" if bad else None,
        )
        for number, (correct, rate, parameters, latency, bad) in enumerate(drawn)
    ]


def ledger(folder: Path, task: str = "colours", identity: str = IDENTITY) -> Ledger:
    """Open what a folder holds of a task's search, or begin one."""
    return Ledger(Storage(folder / task), task, identity)


def everything(values: Values) -> bool:
    """No ceiling."""
    return bool(values)


def worth(values: Values) -> float:
    """What a pretended trial of these values scores."""
    return sum(map(ord, repr(sorted(values.items())))) % 101 / 100


def proposals(sampler: Sampler, count: int, told: Sequence[Told] = ()) -> list[Told]:
    """Propose one at a time, each told before the next, after what was told already."""
    known = list(told)
    while len(known) < count:
        values = sampler.propose(len(known), known, everything)
        if values is None:
            break
        known.append(Told(values=values, score=worth(values)))
    return known


class Costs:
    """Costs that are read off the values: a parameter for each prompt, latency by rank."""

    def __init__(self) -> None:
        self.measured: dict[str, float] = {}

    def count(self, method: str, hyper: Mapping[str, Any], classes: int) -> int | None:
        """Ten numbers for each prompt and class; what has 16 prompts does not fit."""
        assert (method, classes) == ("vapt", 3)
        prompts = int(hyper.get("prompts", 1))
        return None if prompts == 16 else 10 * prompts

    def latency(self, method: str, hyper: Mapping[str, Any], classes: int) -> float:
        """Grow by a tenth for each rank."""
        assert (method, classes) == ("vapt", 3)
        rank = int(hyper.get("rank", 0))
        return self.measured.setdefault(f"rank {rank}", 1.0 + rank / 10)

    def as_json(self) -> dict[str, float]:
        """What was asked for."""
        return dict(self.measured)


SEARCH = "    search: {sampler: random, trials: 2, epochs: 1}\n"
SPACE = "spaces:\n  vapt: {prompts: [2, 3], learning_rate: {low: 0.001, high: 0.1, log: true}}\n"
TASK = "colours"
AS_PINNED = "    hyper: {prompts: 2, rank: 2, kernel: 1}\n"


def searched(search: str = SEARCH, spaces: str = SPACE, **changes: str) -> str:
    """Parameters of a bank whose profile searches; changes name what is replaced by what."""
    line = "    train: {epochs: 1, batch_size: 8}\n"
    text = PARAMS.replace(line, line + search).replace("tasks:\n", spaces + "tasks:\n", 1)
    text = text.replace(AS_PINNED, changes.pop("hyper", "    hyper: {rank: 2, kernel: 1}\n"))
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def configure(root: Path, text: str) -> Bank:
    (root / "pipelines" / "params.yaml").write_text(text)
    return Bank.open(root)


def refuse(ran: Ran, code: int, *said: str, fix: bool = True) -> None:
    """Expect an exit code, one clear message and, in it, what mends it."""
    assert ran.code == code, ran
    assert [part for part in said if part not in ran.err] == [], ran.err
    assert "Traceback" not in ran.err
    assert not fix or "To mend it: " in ran.err, ran.err
    assert ran.out == ""
