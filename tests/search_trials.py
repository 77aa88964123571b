"""Trials, ledgers and costs of searches, made by hand: nothing here trains or starts Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hypothesis import strategies as st

from adapterbank.bank.bank import Bank
from adapterbank.config.search import Range, SearchConfig, Space
from adapterbank.records import Score
from adapterbank.search.ledger import Ledger, Point, State, Trial
from adapterbank.search.outcome import Costs
from adapterbank.search.samplers import Sampler
from adapterbank.search.space import Values
from adapterbank.search.storage import Storage
from adapterbank.search.task_search import TaskSearch
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


EPOCHS = 9  # of a whole trial


def task_search(folder: Path, **config: Any) -> TaskSearch:  # noqa: ANN401  # settings
    """Go on with what a folder holds of a search of ``colours``, or begin one."""
    book = ledger(folder)
    book.note()
    settings = SearchConfig.model_validate({"trials": 6, **config})
    costs = cast("Costs", PretendedCosts())
    return TaskSearch(settings, LISTS, book, epochs=EPOCHS, costs=costs)


def everything(values: Values) -> bool:
    """No ceiling."""
    return bool(values)


def worth(values: Values) -> float:
    """What a pretended trial of these values scores."""
    return sum(map(ord, repr(sorted(values.items())))) % 101 / 100


def scored(number: int, values: Values, score: float) -> Trial:
    """A trial whose validation accuracy is a whole number of hundredths."""
    return ended(number, [round(score * VAL)], values=values)


def proposals(sampler: Sampler, count: int, before: Sequence[Trial] = ()) -> list[Trial]:
    """Propose one at a time, each ended before the next, after what was there already."""
    trials = list(before)
    while len(trials) < count:
        values = sampler(trials, everything)
        if values is None:
            break
        trials.append(scored(len(trials), values, worth(values)))
    return trials


class PretendedCosts:
    """Costs that are read off the values: a parameter for each prompt, latency by rank."""

    def __init__(self) -> None:
        self.latencies: dict[str, float] = {}

    def count(self, values: Values) -> int | None:
        """Ten numbers for each prompt; what has 16 prompts does not fit."""
        prompts = int(values.get("prompts", 1))
        return None if prompts == 16 else 10 * prompts

    def latency(self, values: Values) -> float:
        """Grow by a tenth for each rank."""
        rank = int(values.get("rank", 0))
        return self.latencies.setdefault(f"rank {rank}", 1.0 + rank / 10)


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
