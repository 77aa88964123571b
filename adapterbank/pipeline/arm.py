"""One training of the ``train`` stage: what decides it, its checkpoint and its curves.

A stage has one arm, from scratch, or a second one that starts from another task's adapter
(:mod:`adapterbank.pipeline.warm_start`). Both have the same data, settings and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from adapterbank.backbones.base import Backbone
from adapterbank.backbones.loading import pick_device
from adapterbank.bank.bank import Bank
from adapterbank.bank.plan import Plan, plan_of
from adapterbank.config.bank import PARAMS, TrainConfig
from adapterbank.data.base import Split, TaskData
from adapterbank.data.store import load_task, stored_digest
from adapterbank.inference.artifact import build_adapter, libraries
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.integrations.mlflow.runs import RunLogger
from adapterbank.methods.base import Adapter
from adapterbank.registry.adapter_config import AdapterConfig, BackboneUse, DataUse, MethodUse
from adapterbank.training.checkpoint import Checkpointer, code_digest, identify
from adapterbank.training.evaluation import Progress
from adapterbank.training.loop import TrainResult
from adapterbank.training.loop import train as train_adapter
from adapterbank.training.recipes import Recipe, find_recipe
from adapterbank.training.sinks import Epoch, Sink

Note = Callable[[str], None]
"""Told something about the work, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One training, ready to start.

    Args:
        backbone: frozen.
        data: of the task, with all splits.
        adapter: at its start; training changes it.
        recipe: how to optimise.
        settings: epochs and batch size.
        config: what the version will say of itself.
        plan: where the hyper-parameters came from.
    """

    backbone: Backbone
    data: TaskData
    adapter: Adapter
    recipe: Recipe
    settings: TrainConfig
    config: AdapterConfig
    plan: Plan

    @classmethod
    def of(cls, bank: Bank, task: str) -> Arm:
        """Make a task's training from scratch.

        Raises:
            InputError: the data is not prepared, or a search that is due has not run.
        """
        section, plan = bank.config.task(task), plan_of(bank, task)
        settings = plan.training
        backbone = load_bank_backbone(bank.registry, pick_device(settings.device))
        data = load_task(bank.data(task), spec=backbone.spec)
        recipe = find_recipe(settings, section.method)
        adapter = _start(bank, task, plan, backbone, data)
        return cls(
            backbone=backbone,
            data=data,
            adapter=adapter,
            recipe=recipe,
            settings=settings,
            config=_describe(bank, task, adapter, recipe, plan, data),
            plan=plan,
        )

    def child(self, bank: Bank, parent: str) -> Arm:
        """Make the same training for an adapter of its own, still at its start.

        Args:
            bank: the arm's bank.
            parent: the version it will start from, as a reference by digest. It is part of the
                configuration, so of the identity by which a checkpoint is taken up.
        """
        return replace(
            self,
            adapter=_start(bank, self.config.task, self.plan, self.backbone, self.data),
            config=replace(self.config, parents=(parent,)),
        )

    @property
    def identity(self) -> str:
        """Hash of all that decides the result."""
        return identify(
            {
                "config": asdict(self.config),
                "device": str(self.backbone.device),
                "code": code_digest(),
            }
        )

    def train(
        self, sinks: Sequence[Sink], progress: Progress | None, kept: Checkpointer
    ) -> TrainResult:
        """Train, or go on with what was kept.

        Raises:
            TrainingDiverged: the loss became NaN or infinite.
        """
        return train_adapter(
            self.backbone,
            _with_val(self.data) if self.plan.refit else self.data,
            self.adapter,
            self.recipe,
            self.settings,
            seed=self.config.seed,
            sinks=sinks,
            progress=progress,
            checkpoint=kept,
        )


class RunSink:
    """Send the curves of an arm to the stage's MLflow run.

    Args:
        run: of the stage.
        refit: the validation images are trained on, so that their figures are no score.
        prefix: of the curves' names; the scratch arm has none.
    """

    def __init__(self, run: RunLogger, *, refit: bool, prefix: str = "") -> None:
        self._run = run
        self._prefix = prefix
        self._val = "seen" if refit else "val"

    def catch_up(self, kept: Checkpointer) -> float:
        """Note the epochs that a killed process had kept but not sent; return their seconds."""
        if kept.found is None:
            return 0.0
        sent = self._run.steps(f"{self._prefix}train/loss")
        for epoch in kept.found.epochs:
            if epoch.number not in sent:
                self.epoch(epoch)
        return sum(epoch.seconds for epoch in kept.found.epochs)

    def step(self, done: int, total: int) -> None:
        """Nothing: a figure for each step would drown the curves."""

    def epoch(self, epoch: Epoch) -> None:
        """Note one epoch."""
        figures = {
            "train/loss": epoch.loss,
            "train/accuracy": epoch.train.accuracy,
            f"{self._val}/loss": epoch.val_loss,
            f"{self._val}/accuracy": epoch.val.accuracy,
            "rate": epoch.rate,
        }
        self._run.epoch(epoch.number, {self._prefix + name: f for name, f in figures.items()})


def find_checkpoint(directory: Path, arm: Arm, note: Note | None) -> Checkpointer:
    """Look for what a killed training of exactly this kept, and say so."""
    kept = Checkpointer.open(directory, arm.identity, note)
    if kept.found is not None and note is not None:
        done, epochs = len(kept.found.epochs), arm.settings.epochs
        note(
            f"Continuing at epoch {done + 1} of {epochs}"
            if done < epochs
            else f"All {epochs} epochs are done: finishing"
        )
    return kept


def _start(bank: Bank, task: str, plan: Plan, backbone: Backbone, data: TaskData) -> Adapter:
    section = bank.config.task(task)
    return build_adapter(
        section.method,
        plan.hyper,
        backbone.traits,
        len(data.classes),
        seed=section.seed,
        where=f"{PARAMS}: tasks.{task}.hyper",
    )


def _describe(
    bank: Bank, task: str, adapter: Adapter, recipe: Recipe, plan: Plan, data: TaskData
) -> AdapterConfig:
    """All that is needed to rebuild and to trace the adapter."""
    section, backbone = bank.config.task(task), bank.registry.backbone()
    settings = plan.training.model_dump()
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
