"""``tune``: search the hyper-parameters of one or more tasks and leave each its winner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch

from adapterbank import durable
from adapterbank.backbones.loading import read_weights
from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.bank.bank import Bank
from adapterbank.bank.plan import (
    NOT_DECIDING,
    TRIALS,
    Budget,
    Winner,
    search_identity,
    write_winner,
)
from adapterbank.config.search import SearchConfig
from adapterbank.data.base import TaskData
from adapterbank.data.store import load_task, stored_digest
from adapterbank.errors import AdapterBankError, ConflictError, InputError, IntegrityError
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.search.cluster import check_gpus, connected, per_trial
from adapterbank.search.experiment import run_experiment
from adapterbank.search.ledger import Ledger, Trial
from adapterbank.search.outcome import Costs, choose, pareto, table
from adapterbank.search.runs import SearchRuns, open_search_runs
from adapterbank.search.space import search_of, space_of
from adapterbank.search.storage import Storage
from adapterbank.search.task_search import TaskSearch, View
from adapterbank.search.trial import Brief, Shared, share, share_images

Earlier = Literal["refuse", "resume", "renew", "discard"]
"""What to do with an earlier search in the same place: refuse one that was interrupted; go on
with it (one of other data or settings is an error); go on or else begin anew; begin anew."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a search runs and keeps its state; nothing of it changes what it finds."""

    address: str | None = None  # of a Ray cluster; None: this machine
    storage: str | None = None  # a folder or bucket all nodes reach; None: in the bank
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None

    def over(self, config: SearchConfig) -> SearchConfig:
        """The configuration with what is said here instead."""
        names = ("cpus_per_trial", "gpus_per_trial", "max_concurrent")
        said = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return config.model_copy(update=said)


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a task's search found."""

    task: str
    winner: Winner
    front: tuple[Trial, ...]
    trials: tuple[Trial, ...]
    seconds: float


def tune(  # each is a choice of the caller's
    bank: Bank,
    tasks: Sequence[str],
    view: View,
    where: Where = Where(),
    *,
    earlier: Earlier = "resume",
    note: Callable[[str], None] = lambda _: None,
) -> tuple[SearchResult, ...]:
    """Search for one task after the other, on one cluster, and write ``work/<task>/best.json``.

    A search of the same data and settings that was interrupted goes on: trials that ended are
    kept, others go on after their last epoch. The registry is read for the backbone and never
    written. What is wrong with any task is said before the first trial of any; where one's search
    fails, the others are searched all the same.

    Args:
        bank: an open bank whose tasks are prepared.
        tasks: their names.
        view: shown how it goes.
        where: cluster, storage and resources.
        earlier: what to do with an earlier search in the same place.
        note: told, in a sentence, of a search that goes on.

    Raises:
        AdapterBankError: no trial of a task came to anything, or the cluster is gone.
        ConfigError: a space is empty or has what its method does not know.
        ConflictError: the storage holds another search, one that ``resume`` does not allow, or one
            that runs.
        InputError: the profile has no search, the data cannot be judged on, more resources are
            asked for than there are, or the storage cannot be written.
    """
    config = where.over(search_of(bank))
    results, failures = list[SearchResult](), list[AdapterBankError]()
    with ExitStack() as stack:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        backbone = load_bank_backbone(bank.registry, device)
        works = []
        for task in sorted(tasks):
            storage = _storage(bank, task, where)
            storage.check()
            stack.enter_context(storage.lock())
            ledger = _ledger(bank, task, storage, earlier, note)
            works.append(_prepare(bank, task, config, backbone, ledger))
        cluster = None
        if not all(work.complete for work in works):
            cluster = _Cluster.of(bank, config, stack.enter_context(connected(where.address)))
        for work in works:
            try:
                results.append(_search(bank, work, cluster, view))
            except AdapterBankError as error:
                failures.append(error)
    for failure in failures[1:]:
        note(failure.message)
    if failures:
        raise failures[0]
    return tuple(results)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """One task, ready to be searched."""

    search: TaskSearch
    brief: Brief
    data: TaskData

    @property
    def complete(self) -> bool:
        """Whether an earlier process searched to the end."""
        return self.search.ledger.header.complete


@dataclass(frozen=True, kw_only=True)
class _Cluster:
    """What the searches of all tasks have in common on a cluster."""

    resources: Mapping[str, float]  # of one trial
    backbone: BackboneRecord
    weights: Any  # reference to the backbone's

    @classmethod
    def of(cls, bank: Bank, config: SearchConfig, has: dict[str, float]) -> Self:
        """Check that a cluster with these resources can run trials, and share the backbone."""
        resources = per_trial(config, has, bank.config.active.train.threads)
        check_gpus(resources)
        weights = share(read_weights(bank.registry.backbone_weights))
        return cls(resources=resources, backbone=bank.registry.backbone(), weights=weights)


def _search(bank: Bank, work: _Work, cluster: _Cluster | None, view: View) -> SearchResult:
    """Run the trials that a task's search has left, and conclude it; with all done, no cluster."""
    ledger = work.search.ledger
    runs = open_search_runs(bank.root, ledger.task, ledger.header.identity, _params(work))
    with runs as log:
        if cluster is not None and not work.complete:
            shared = Shared(
                backbone=cluster.backbone,
                weights=cluster.weights,
                brief=work.brief,
                splits=share_images(work.data),
            )
            run_experiment(work.search, shared, cluster.resources, view, log.trial)
        return _conclude(bank, work, log)


def _storage(bank: Bank, task: str, where: Where) -> Storage:
    if where.storage is None:
        return Storage(bank.root / "work" / task / "search")
    return Storage(where.storage).inside(task)


def _ledger(
    bank: Bank, task: str, storage: Storage, earlier: Earlier, note: Callable[[str], None]
) -> Ledger:
    """Open what the storage holds of this search, or begin one.

    Raises:
        ConflictError: it holds another search, or one that is not to go on.
    """
    if earlier == "discard":
        Ledger.clear(storage)
    identity = search_identity(bank, task)
    try:
        ledger = Ledger(storage, task, identity)
    except (ConflictError, IntegrityError) as error:
        if earlier != "renew":
            raise
        note(f"{error.message}: beginning anew")
        Ledger.clear(storage)
        ledger = Ledger(storage, task, identity)
    ended = len(ledger.ended)
    if ledger.header.complete:
        note(f"The search of {task} is complete: {ended} trials")
    elif ledger.trials and earlier == "refuse":
        raise ConflictError(
            f"{storage.uri} holds a search of {task} that was interrupted; {ended} of its trials"
            " are done",
            fix=f"adapterbank tune {task} --resume, or --fresh to begin again",
        )
    elif ledger.trials:
        note(f"Going on with the search of {task}: {ended} of its trials are done")
    return ledger


def _prepare(
    bank: Bank, task: str, config: SearchConfig, backbone: TimmViT, ledger: Ledger
) -> _Work:
    section, training = bank.config.task(task), bank.config.training(task)
    space = space_of(bank, task)
    data = load_task(bank.data(task), spec=backbone.spec)
    _check_val(task, data)
    epochs = config.epochs or training.epochs
    ledger.note()  # from here on the storage belongs to this search
    costs = Costs(
        backbone, section.method, section.hyper, len(data.classes), ledger.header.latencies
    )
    brief = Brief(
        task=task,
        method=section.method,
        hyper=dict(section.hyper),
        training=training.model_dump() | {"epochs": epochs, "fit": "train"},
        seed=section.seed,
        classes=data.classes,
        data=stored_digest(bank.data(task)),
        storage=ledger.storage.uri,
    )
    search = TaskSearch(config, space, ledger, epochs=epochs, costs=costs)
    return _Work(search=search, brief=brief, data=data)


def _check_val(task: str, data: TaskData) -> None:
    """Refuse to choose on images that lack a class: the choice would not know of it.

    Raises:
        InputError: a class has no validation image.
    """
    counts = torch.bincount(data.val.labels, minlength=len(data.classes))
    missing = [name for name, n in zip(data.classes, counts.tolist(), strict=True) if not n]
    if missing:
        raise InputError(
            f"{task}: {len(missing)} of {len(data.classes)} classes have no validation image to"
            f" choose by: {', '.join(missing[:5])}{'…' if len(missing) > 5 else ''}",
            fix="raise limits.val of the profile, or add images",
        )


def _params(work: _Work) -> dict[str, str | int | float]:
    # Not where trials run: a search may go on with other resources than it began with.
    deciding = work.search.config.model_dump(exclude=set(NOT_DECIDING))
    plain = {f"search.{name}": str(value) for name, value in deciding.items()}
    brief = work.brief
    return {"task": brief.task, "method": brief.method, "data.digest": brief.data, **plain}


def _conclude(bank: Bank, work: _Work, log: SearchRuns) -> SearchResult:
    search, task = work.search, work.search.task
    chosen = choose(search.ledger.ended)
    if chosen is None:
        reasons = {trial.error for trial in search.ledger.ended if trial.error}
        raise AdapterBankError(
            f"no trial of {task} came to anything:"
            f" {'; '.join(sorted(reasons)[:3]) or 'none finished an epoch'}",
            fix=f"adapterbank tune {task} --resume once that is mended, or --fresh with other"
            " values or more time",
        )
    trials = search.measure_latencies()
    winner = Winner(
        task=task,
        identity=search.ledger.header.identity,
        trial=chosen.number,
        values=dict(chosen.values),
        val=chosen.points[-1].val,
        budget=Budget(
            sampler=search.config.sampler,
            scheduler=search.config.scheduler,
            trials=len(trials),
            epochs=sum(len(trial.points) for trial in trials),
        ),
    )
    if not work.complete:
        search.ledger.note(complete=True)
    text = table(trials, chosen)
    durable.replace_file(bank.note(task, TRIALS), text.encode())
    write_winner(bank, winner)
    front = pareto(trials)
    log.conclude(winner, trials, front, text)
    return SearchResult(
        task=task, winner=winner, front=front, trials=trials, seconds=search.ledger.header.seconds
    )
