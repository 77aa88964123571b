"""The ``train`` stage: one adapter, its frozen statistics, and the MLflow run that tells of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from adapterbank import durable
from adapterbank.bank.bank import Bank, write_json
from adapterbank.bank.plan import Plan
from adapterbank.errors import TrainingDiverged
from adapterbank.inference.artifact import pack_trained
from adapterbank.integrations.mlflow.runs import open_run
from adapterbank.methods.base import count_parameters
from adapterbank.pipeline.arm import Arm, RunSink, find_checkpoint
from adapterbank.pipeline.notes import PROBE, RUN, VAL, WARM_START, figures
from adapterbank.pipeline.warm_start import (
    Outcome,
    Watchers,
    choose_parent,
    named_parent,
    run_second_arm,
)
from adapterbank.records import Score
from adapterbank.registry.adapter_config import AdapterConfig
from adapterbank.registry.documents import dump_document
from adapterbank.routing.record import task_record
from adapterbank.training.evaluation import Progress, extract_frozen, score
from adapterbank.training.loop import TrainResult
from adapterbank.training.ridge import Ridge, fit_ridge
from adapterbank.training.sinks import Sink

LAST_GOOD = "last_good.safetensors"


def train(
    bank: Bank,
    task: str,
    sinks: Sequence[Sink] = (),
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train a task's adapter on its prepared splits and log the run.

    A training of the same data, settings and code that was killed goes on after its last whole
    epoch, and gives the bytes it would have given.

    Where the task asks for a warm start, a second adapter is trained from another task's, and the
    better of both on the validation images is kept (:mod:`adapterbank.pipeline.warm_start`).

    Args:
        bank: an open bank with a backbone.
        task: a task that is prepared.
        sinks: told of every step and epoch.
        progress: told of the frozen features' images.
        note: told, in a sentence, of a training that goes on or cannot.

    Returns:
        Validation score, linear probe's, parameters and seconds, and what a warm start gave.

    Raises:
        InputError: a warm start from what cannot be a parent, or a record of blocks there are not.
        TrainingDiverged: the last good weights are in ``work/<task>/last_good.safetensors``.
    """
    arm = Arm.of(bank, task)
    config, named = arm.config, named_parent(bank, arm)
    kept = find_checkpoint(bank.checkpoint(task), arm, note)
    name = f"{task} {config.method.name}"
    with open_run(
        bank.root, experiment=task, name=name, params=_flat(config), run_id=kept.run_id
    ) as run:
        kept.run_id = run.run_id
        run.dataset(task, config.data.digest, arm.data.source)
        begun = time.perf_counter()
        frozen = _Frozen.of(bank, arm, progress)
        choice = choose_parent(bank, arm, named, frozen.routing, progress)
        told = RunSink(run, refit=arm.plan.refit)
        earlier_s = told.catch_up(kept)
        try:
            result = arm.train((told, *sinks), progress, kept)
        except TrainingDiverged as error:
            _keep_last_good(bank, task, error)
            kept.discard()  # going on would only diverge again
            raise
        outcome = Outcome(arm=arm, result=result)
        if choice is not None:
            watchers = Watchers(run=run, sinks=sinks, progress=progress, note=note)
            outcome = run_second_arm(bank, arm, result, choice, watchers)
        seconds = earlier_s + outcome.earlier_s + time.perf_counter() - begun
        chosen_by = _write(bank, outcome, frozen)
        run.epoch(0, {"val/linear_probe": frozen.probe_val.accuracy})
        run.epoch(arm.settings.epochs, {"seconds": seconds})
        write_json(bank.note(task, RUN), {"run_id": run.run_id, "seconds": round(seconds, 2)})
    kept.discard()  # last of all: a process killed before has all of it to finish with
    return _summary(outcome, chosen_by, seconds)


@dataclass(frozen=True, kw_only=True)
class _Frozen:
    """What the bare backbone gives: the linear probe and the routing record."""

    routing: dict[str, Any]
    probe: Ridge  # fitted to all that the adapter is trained on
    probe_val: Score  # of one that never saw the validation images

    @classmethod
    def of(cls, bank: Bank, arm: Arm, progress: Progress | None) -> _Frozen:
        backbone, data = arm.backbone, arm.data
        blocks = bank.config.router.recorded(backbone.traits.blocks)
        train_layers = extract_frozen(backbone, data.train, blocks, progress)
        val_layers = extract_frozen(backbone, data.val, blocks, progress)
        train, val, classes = train_layers[:, -1], val_layers[:, -1], len(data.classes)
        probe = fit_ridge(train, data.train.labels, classes)
        probe_val = score(probe.scores(val), data.val.labels).score
        if arm.plan.refit:
            labels = torch.cat([data.train.labels, data.val.labels])
            probe = fit_ridge(torch.cat([train, val]), labels, classes)
        return cls(
            routing=task_record(train_layers, data.train.labels, classes, val_layers, blocks),
            probe=probe,
            probe_val=probe_val,
        )


def _summary(outcome: Outcome, chosen_by: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    method, head = count_parameters(outcome.result.adapter)
    return {
        "task": outcome.arm.config.task,
        "method": outcome.arm.config.method.name,
        "val": {key: chosen_by["val"][key] for key in ("correct", "total")},
        "linear_probe_val": chosen_by["linear_probe"],
        "parameters": {"method": method, "head": head},
        "seconds": seconds,
    } | {key: chosen_by[key] for key in (WARM_START,) if key in chosen_by}


def _val_figures(result: TrainResult, plan: Plan) -> dict[str, Any]:
    """The validation figures of a version: measured on images its training had not seen.

    Of weights that were trained on the validation images there are none, so those of the search's
    trial stand for them: the same configuration, trained without.
    """
    if plan.winner is None or not plan.refit:
        return figures(result.val)
    return {**asdict(plan.winner.val), "by": f"trial {plan.winner.trial} of the search"}


def _write(bank: Bank, outcome: Outcome, frozen: _Frozen) -> dict[str, Any]:
    """Write what training decides of a version; return the figures that choices were made by."""
    arm, result = outcome.arm, outcome.result
    task = arm.config.task
    chosen_by = {
        "val": _val_figures(result, arm.plan),
        "linear_probe": asdict(frozen.probe_val),
        **({WARM_START: outcome.report} if outcome.report else {}),
    }
    packed = pack_trained(result.adapter, arm.config, arm.backbone, frozen.routing)
    packed[PROBE] = save({"weight": frozen.probe.weight, "bias": frozen.probe.bias})
    packed[VAL] = dump_document(chosen_by)
    durable.make_directory(bank.trained(task).parent)
    durable.replace_directory(bank.trained(task), packed)
    bank.note(task, LAST_GOOD).unlink(missing_ok=True)  # of an earlier run that diverged
    return chosen_by


def _keep_last_good(bank: Bank, task: str, error: TrainingDiverged) -> None:
    path = bank.note(task, LAST_GOOD)
    state: dict[str, Tensor] = dict(error.last_good or {})
    durable.make_directory(path.parent)
    durable.replace_file(path, save({name: t.contiguous() for name, t in state.items()}))
    error.message += f". The last good weights are in {path.relative_to(bank.root)}"


def _flat(config: AdapterConfig) -> dict[str, str | int | float]:
    """Parameters of a run as MLflow takes them: one level, dotted names."""
    flat: dict[str, str | int | float] = {
        "task": config.task,
        "method": config.method.name,
        "classes": len(config.classes),
        "backbone.uri": config.backbone.uri,
        "backbone.fingerprint": config.backbone.fingerprint,
        "data.source": config.data.source,
        "data.digest": config.data.digest,
        "input.size": "x".join(map(str, config.input.size)),
        "seed": config.seed,
    }
    for prefix, section in (("hyper", config.method.hyper), ("train", config.train)):
        for name, value in section.items():
            inner = value.items() if isinstance(value, dict) else [(None, value)]
            for key, item in inner:
                flat[f"{prefix}.{name}" + (f".{key}" if key else "")] = str(item)
    return flat
