"""The ``train`` stage: one adapter, its frozen statistics, and the MLflow run that logs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from adapterbank import durable
from adapterbank.backbones.base import Backbone
from adapterbank.backbones.loading import pick_device
from adapterbank.bank.bank import RUN, Bank, write_json
from adapterbank.bank.features import SplitLogits, frozen_split, keep_logits
from adapterbank.bank.plan import Plan, plan_of
from adapterbank.config.bank import PARAMS, TrainConfig
from adapterbank.data.base import Split, TaskData
from adapterbank.data.store import load_task, stored_digest
from adapterbank.errors import TrainingDiverged
from adapterbank.inference.artifact import adapter_digest, build_adapter, libraries, pack_trained
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.integrations.mlflow.runs import RunLogger, open_run
from adapterbank.methods.base import Adapter, count_parameters
from adapterbank.model.threads import computing_with
from adapterbank.pipeline.notes import PROBE, VAL, figures
from adapterbank.records import Score
from adapterbank.registry.adapter_config import AdapterConfig, BackboneUse, DataUse, MethodUse
from adapterbank.registry.documents import dump_document
from adapterbank.registry.seen import SEEN, pack_seen
from adapterbank.routing.record import task_record
from adapterbank.training.checkpoint import Checkpointer, identify
from adapterbank.training.code import code_digest
from adapterbank.training.evaluation import Progress, score
from adapterbank.training.loop import TrainResult
from adapterbank.training.loop import train as train_adapter
from adapterbank.training.recipes import Recipe, find_recipe
from adapterbank.training.ridge import Ridge, fit_ridge
from adapterbank.training.sinks import Epoch, Sink

LAST_GOOD = "last_good.safetensors"

Note = Callable[[str], None]
"""Called with a sentence about the work."""


def train(
    bank: Bank,
    task: str,
    sinks: Sequence[Sink] = (),
    progress: Progress | None = None,
    note: Note | None = None,
) -> dict[str, Any]:
    """Train a task's adapter on its prepared splits and log the run.

    A training of the same data, settings and code that was killed goes on after its last whole
    epoch, and gives the bytes it would have given.

    Args:
        bank: an open bank with a backbone.
        task: a task that is prepared.
        sinks: called after every step and epoch.
        progress: called with the number of images whose frozen features are computed.
        note: called where a killed training goes on, or cannot.

    Returns:
        Validation score, linear probe's, parameters and seconds.

    Raises:
        InputError: the data is not prepared, a search that is due has not run, or the router is to
            record blocks that the backbone does not have.
        TrainingDiverged: the last good weights are in ``work/<task>/last_good.safetensors``.
    """
    if note is not None and bank.config.task(task).warm_start != "none":
        note(f"{PARAMS}: tasks.{task}.warm_start is not used any more: training from scratch")
    training = Training.of(bank, task)
    checkpoint = _find_checkpoint(bank, training, note)
    with (
        computing_with(training.settings.threads),
        open_run(
            bank.root,
            experiment=task,
            name=f"{task} {training.config.method.name}",
            params=_flat(training.config) | {"train.device": str(training.backbone.device)},
            run_id=checkpoint.run_id,
        ) as run,
    ):
        checkpoint.run_id = run.run_id
        run.dataset(task, training.config.data.digest, training.data.source)
        begun = time.perf_counter()
        frozen = _Frozen.of(bank, training, progress)
        curves = _RunSink(run, refit=training.plan.refit)
        earlier_s = curves.catch_up(checkpoint)
        try:
            result = train_adapter(
                training.backbone,
                _with_val(training.data) if training.plan.refit else training.data,
                training.adapter,
                training.recipe,
                training.settings,
                seed=training.config.seed,
                sinks=(curves, *sinks),
                progress=progress,
                checkpoint=checkpoint,
            )
        except TrainingDiverged as error:
            _keep_last_good(bank, task, error)
            checkpoint.discard()  # going on would only diverge again
            raise
        seconds = earlier_s + time.perf_counter() - begun
        val = _val_figures(result, training.plan)
        _write(bank, training, result, frozen, val)
        run.epoch(0, {"val/linear_probe": frozen.probe_val.accuracy})
        run.epoch(training.settings.epochs, {"seconds": seconds})
        write_json(bank.note(task, RUN), {"run_id": run.run_id, "seconds": round(seconds, 2)})
    checkpoint.discard()  # last of all: a process killed before has all of it to finish with
    method, head = count_parameters(result.adapter)
    return {
        "task": task,
        "method": training.config.method.name,
        "val": {key: val[key] for key in ("correct", "total")},
        "val_by": val.get("by"),
        "linear_probe_val": asdict(frozen.probe_val),
        "parameters": {"method": method, "head": head},
        "seconds": seconds,
    }


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training, ready to start."""

    backbone: Backbone
    data: TaskData
    adapter: Adapter  # at its start; training changes it
    recipe: Recipe
    settings: TrainConfig
    config: AdapterConfig  # what the version will say of itself
    plan: Plan  # where the hyper-parameters came from

    @classmethod
    def of(cls, bank: Bank, task: str) -> Training:
        """Make a task's training."""
        section, plan = bank.config.task(task), plan_of(bank, task)
        settings = plan.training
        backbone = load_bank_backbone(bank.registry, pick_device(settings.device))
        data = load_task(bank.data(task), spec=backbone.spec)
        recipe = find_recipe(settings, section.method)
        adapter = build_adapter(
            section.method,
            plan.hyper,
            backbone.traits,
            len(data.classes),
            seed=section.seed,
            where=f"{PARAMS}: tasks.{task}.hyper",
        )
        return cls(
            backbone=backbone,
            data=data,
            adapter=adapter,
            recipe=recipe,
            settings=settings,
            config=_describe(bank, task, adapter, recipe, plan, data),
            plan=plan,
        )


class _RunSink:
    """Send a training's curves to its MLflow run; a refit has seen its validation images."""

    def __init__(self, run: RunLogger, *, refit: bool) -> None:
        self._run = run
        self._val = "seen" if refit else "val"

    def catch_up(self, checkpoint: Checkpointer) -> float:
        """Log the epochs that a killed process had kept but not sent; return their seconds."""
        if checkpoint.state is None:
            return 0.0
        sent = self._run.steps("train/loss")
        for epoch in checkpoint.state.epochs:
            if epoch.number not in sent:
                self.epoch(epoch)
        return sum(epoch.seconds for epoch in checkpoint.state.epochs)

    def step(self, done: int, total: int) -> None:
        """Log nothing: a figure for each step would drown the curves."""

    def epoch(self, epoch: Epoch) -> None:
        """Log one epoch."""
        self._run.epoch(
            epoch.number,
            {
                "train/loss": epoch.loss,
                "train/accuracy": epoch.train.accuracy,
                f"{self._val}/loss": epoch.val_loss,
                f"{self._val}/accuracy": epoch.val.accuracy,
                "rate": epoch.rate,
            },
        )


@dataclass(frozen=True, kw_only=True)
class _Frozen:
    """What the bare backbone gives: the linear probe and the routing record."""

    routing: dict[str, Any]
    probe: Ridge  # fitted to all that the adapter is trained on
    probe_val: Score  # of one that never saw the validation images

    @classmethod
    def of(cls, bank: Bank, training: Training, progress: Progress | None) -> _Frozen:
        backbone, classes = training.backbone, len(training.data.classes)
        blocks = bank.config.router.recorded(backbone.traits.blocks)
        train, val = (
            frozen_split(bank, backbone, training.config.task, split, progress=progress)
            for split in ("train", "val")
        )
        probe = fit_ridge(train.last, train.labels, classes)
        probe_val = score(probe.scores(val.last), val.labels).score
        if training.plan.refit:
            labels = torch.cat([train.labels, val.labels])
            probe = fit_ridge(torch.cat([train.last, val.last]), labels, classes)
        return cls(
            routing=task_record(train.features, train.labels, classes, val.features, blocks),
            probe=probe,
            probe_val=probe_val,
        )


def _find_checkpoint(bank: Bank, training: Training, note: Note | None) -> Checkpointer:
    """Look for the checkpoint of a killed training of exactly this, and say so."""
    config = training.config
    identity = identify(  # all that decides the result
        {
            "config": asdict(config),
            "device": str(training.backbone.device),
            "code": code_digest(config.method.name),
        }
    )
    checkpoint = Checkpointer.open(bank.checkpoint(config.task), identity, note)
    if checkpoint.state is not None and note is not None:
        trained, epochs = len(checkpoint.state.epochs), training.settings.epochs
        note(
            f"Continuing at epoch {trained + 1} of {epochs}"
            if trained < epochs
            else f"All {epochs} epochs are done: finishing"
        )
    return checkpoint


def _describe(
    bank: Bank, task: str, adapter: Adapter, recipe: Recipe, plan: Plan, data: TaskData
) -> AdapterConfig:
    """All that is needed to rebuild and to trace the adapter."""
    section, backbone = bank.config.task(task), bank.registry.backbone()
    settings = plan.training.model_dump(exclude={"device"})  # weights do not depend on its name
    if plan.winner is not None:
        settings["search"] = asdict(plan.winner.budget)
    return AdapterConfig(
        schema=1,
        task=task,
        method=MethodUse(name=section.method, hyper=adapter.config.model_dump()),
        classes=data.classes,
        input=backbone.spec,
        backbone=BackboneUse(uri=backbone.uri, fingerprint=backbone.fingerprint),
        parents=(),
        data=DataUse(source=data.source, digest=stored_digest(bank.data(task))),
        train={**settings, "optimisation": recipe.as_json()},
        seed=section.seed,
        libraries=libraries(),
    )


def _with_val(data: TaskData) -> TaskData:
    """Train on the validation images too."""
    images = torch.cat([data.train.images, data.val.images])
    labels = torch.cat([data.train.labels, data.val.labels])
    return replace(data, train=Split(images=images, labels=labels))


def _val_figures(result: TrainResult, plan: Plan) -> dict[str, Any]:
    """The validation figures of a version: measured on images its training had not seen.

    Of weights that were trained on the validation images there are none, so those of the search's
    trial stand for them: the same configuration, trained without. ``by`` says so, and that the best
    of many trials has the luck to be it.
    """
    if plan.winner is None:
        return figures(result.val)
    best = f"the best of {plan.winner.budget.trials} trials of the search, so too high"
    if not plan.refit:
        return {**figures(result.val), "by": f"hyper-parameters of {best}"}
    return {**asdict(plan.winner.val), "by": f"trial {plan.winner.trial}, {best}"}


def _write(
    bank: Bank, training: Training, result: TrainResult, frozen: _Frozen, val: dict[str, Any]
) -> None:
    """Write what training decides of a version, with its validation figures."""
    task = training.config.task
    packed = pack_trained(result.adapter, training.config, training.backbone, frozen.routing)
    val_logits = SplitLogits(logits=result.val.logits, labels=training.data.val.labels)
    keep_logits(bank, training.backbone, "val", adapter_digest(packed), training.config, val_logits)
    packed[SEEN] = pack_seen(_seen_digests(training))
    packed[PROBE] = save({"weight": frozen.probe.weight, "bias": frozen.probe.bias})
    packed[VAL] = dump_document({"val": val, "linear_probe": asdict(frozen.probe_val)})
    durable.make_directory(bank.trained(task).parent)
    durable.replace_directory(bank.trained(task), packed)
    bank.note(task, LAST_GOOD).unlink(missing_ok=True)  # of an earlier run that diverged


def _seen_digests(training: Training) -> tuple[bytes, ...]:
    """Digests of the images that decided the weights, or the hyper-parameters by a search."""
    data, searched = training.data, training.plan.winner is not None
    val = data.val.digests if searched or training.plan.refit else ()
    return (*data.train.digests, *val)


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
