"""``tune``: search the hyper-parameters of one or more tasks and leave each its winner."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from ray import tune as ray_tune
from ray.tune.error import TuneError

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
from adapterbank.search.cluster import check_gpus, connected, hushed, per_trial, scratch
from adapterbank.search.contest import Entry, FairSearcher, PerTask
from adapterbank.search.cost import CostTable
from adapterbank.search.ledger import Ledger, Trial
from adapterbank.search.outcome import choose, pareto, table
from adapterbank.search.runs import SearchRuns
from adapterbank.search.space import search_of, space_of
from adapterbank.search.storage import Storage
from adapterbank.search.trial import Brief, run_trial, share
from adapterbank.search.watch import View, Watch

Earlier = Literal["refuse", "resume", "renew", "discard"]
"""What to do with an earlier search in the same place: refuse one that was interrupted; go on
with it (one of other data or settings is an error); go on or else begin anew; begin anew."""

_RETRIES = 3  # of a trial whose worker or node was lost


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
        said = {
            name: value
            for name in ("cpus_per_trial", "gpus_per_trial", "max_concurrent")
            if (value := getattr(self, name)) is not None
        }
        return config.model_copy(update=said)


@dataclass(frozen=True, kw_only=True)
class Outcome:
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
    note: Callable[[str], None] | None = None,
) -> tuple[Outcome, ...]:
    """Search for tasks at once, under one scheduler, and write ``work/<task>/best.json``.

    A search of the same data and settings that was interrupted goes on: trials that ended are
    kept, others go on after their last epoch. The registry is read for the backbone and never
    written.

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
    config = _config(bank, where)
    with ExitStack() as stack:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        backbone = load_bank_backbone(bank.registry, device)
        works = {}
        for task in sorted(tasks):
            storage = _storage(bank, task, where)
            storage.check()
            stack.enter_context(storage.held())
            ledger = _ledger(bank, task, storage, earlier, note)
            if ledger.trials:
                _say(note, _progress(ledger))
            works[task] = _prepare(bank, task, config, backbone, ledger)
        entries = {task: work.entry for task, work in works.items()}
        logs = {task: stack.enter_context(_open_log(bank, work)) for task, work in works.items()}
        watch = Watch(entries, view, lambda task, trial: logs[task].trial(trial), _RETRIES)
        if any(_open(entry) for entry in entries.values()):
            cluster = stack.enter_context(connected(where.address))
            resources = per_trial(config, cluster)
            check_gpus(resources)
            _fit(bank, config, works, watch, resources)
        return tuple(_conclude(bank, works[task], watch.seconds, logs[task]) for task in entries)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """One task, ready to be searched."""

    task: str
    entry: Entry
    brief: Brief
    data: TaskData
    identity: str


def _config(bank: Bank, where: Where) -> SearchConfig:
    return where.over(search_of(bank))


def _storage(bank: Bank, task: str, where: Where) -> Storage:
    if where.storage is None:
        return Storage(bank.root / "work" / task / "search")
    return Storage(where.storage).inside(task)


def _ledger(
    bank: Bank, task: str, storage: Storage, earlier: Earlier, note: Callable[[str], None] | None
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
        _say(note, f"{error.message}: beginning anew")
        Ledger.clear(storage)
        ledger = Ledger(storage, task, identity)
    if earlier == "refuse" and ledger.trials and not ledger.complete:
        done = sum(trial.done for trial in ledger.trials.values())
        raise ConflictError(
            f"{storage.uri} holds a search of {task} that was interrupted; {done} of its trials"
            " are done",
            fix=f"adapterbank tune {task} --resume, or --fresh to begin again",
        )
    return ledger


def _say(note: Callable[[str], None] | None, text: str) -> None:
    if note is not None:
        note(text)


def _progress(ledger: Ledger) -> str:
    done = sum(trial.done for trial in ledger.trials.values())
    if ledger.complete:
        return f"The search of {ledger.task} is complete: {done} trials"
    return f"Going on with the search of {ledger.task}: {done} of its trials are done"


def _prepare(
    bank: Bank, task: str, config: SearchConfig, backbone: TimmViT, ledger: Ledger
) -> _Work:
    section, training = bank.config.task(task), bank.config.training(task)
    space = space_of(bank, task)
    data = load_task(bank.data(task), spec=backbone.spec)
    _check_val(task, data)
    epochs = config.epochs or training.epochs
    ledger.note()  # from here on the storage belongs to this search
    entry = Entry(
        config,
        space,
        ledger,
        method=section.method,
        hyper=section.hyper,
        classes=len(data.classes),
        epochs=epochs,
        costs=CostTable(backbone, ledger.latencies),
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
    return _Work(task=task, entry=entry, brief=brief, data=data, identity=ledger.identity)


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


def _open(entry: Entry) -> bool:
    """Whether trials are left to run."""
    return not entry.ledger.complete


def _open_log(bank: Bank, work: _Work) -> SearchRuns:
    return SearchRuns(
        bank.root, work.task, work.identity,
        name=f"{work.task} search", params=_params(work.entry.config, work.brief),
    )  # fmt: skip


def _params(config: SearchConfig, brief: Brief) -> dict[str, str | int | float]:
    # Not where trials run: a search may go on with other resources than it began with.
    deciding = config.model_dump(exclude=set(NOT_DECIDING))
    plain = {f"search.{name}": str(value) for name, value in deciding.items()}
    return {"task": brief.task, "method": brief.method, "data.digest": brief.data, **plain}


def _fit(
    bank: Bank,
    config: SearchConfig,
    works: Mapping[str, _Work],
    watch: Watch,
    resources: Mapping[str, float],
) -> None:
    entries = {task: work.entry for task, work in works.items() if _open(work.entry)}
    record = bank.registry.backbone()
    state = read_weights(bank.registry.backbone_weights)
    shared = share(
        record.arch, record.spec, record.fingerprint, state,
        {task: (works[task].brief, works[task].data) for task in entries},
    )  # fmt: skip
    spent = max(entry.ledger.seconds for entry in entries.values())
    left_s = None if config.minutes is None else max(1.0, config.minutes * 60.0 - spent)
    trainable: Any = ray_tune.with_resources(
        ray_tune.with_parameters(run_trial, shared={"all": shared}), dict(resources)
    )
    # Interrupts are ours: an exception that ends the block, not a request to Tune to wind up.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # told in a line by the watch
    with scratch() as folder, hushed():
        tuner = ray_tune.Tuner(
            trainable,
            tune_config=ray_tune.TuneConfig(
                search_alg=FairSearcher(entries),
                scheduler=PerTask(entries),
                num_samples=-1,
                max_concurrent_trials=config.max_concurrent,
                time_budget_s=left_s,
                reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(
                name="search",
                storage_path=str(folder),
                callbacks=[watch],
                failure_config=ray_tune.FailureConfig(max_failures=_RETRIES),
                verbose=0,
            ),
        )
        try:
            with watch.interrupts.held():
                tuner.fit()
        except TuneError as error:
            raise _own(error) from error
    watch.time_is_up()


def _own(error: BaseException) -> AdapterBankError:
    """Find our own error among those that led to Tune's, or make one of it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AdapterBankError):
            return cause
        cause = cause.__cause__ or cause.__context__
    last = str(error).strip().splitlines()[-1:]
    return AdapterBankError(f"Ray gave the search up: {''.join(last)}", fix="run it again")


def _conclude(bank: Bank, work: _Work, seconds: float, log: SearchRuns) -> Outcome:
    entry, ledger = work.entry, work.entry.ledger
    winner = choose(tuple(ledger.trials.values()))
    if winner is None:
        reasons = {trial.error for trial in ledger.trials.values() if trial.error}
        raise AdapterBankError(
            f"no trial of {work.task} came to anything:"
            f" {'; '.join(sorted(reasons)[:3]) or 'none finished an epoch'}",
            fix=f"adapterbank tune {work.task} --resume once that is mended, or --fresh with other"
            " values or more time",
        )
    for trial in list(ledger.trials.values()):
        if trial.points and trial.latency is None and trial.error is None:
            ledger.put(replace(trial, latency=entry.latency(trial.values)))
    trials = tuple(trial for _, trial in sorted(ledger.trials.items()))
    found = Winner(
        task=work.task,
        identity=work.identity,
        trial=winner.number,
        values=dict(winner.values),
        val=winner.points[-1].val,
        budget=Budget(
            sampler=entry.config.sampler,
            scheduler=entry.config.scheduler,
            trials=len(trials),
            epochs=sum(len(trial.points) for trial in trials),
        ),
    )
    if not ledger.complete:
        ledger.note(complete=True)
    text = table(trials, winner)
    durable.replace_file(bank.note(work.task, TRIALS), text.encode())
    write_winner(bank, found)
    front = pareto(trials)
    log.conclude(found, trials, front, text)
    return Outcome(task=work.task, winner=found, front=front, trials=trials,
                   seconds=max(ledger.seconds, seconds))  # fmt: skip
