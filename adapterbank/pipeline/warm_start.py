"""Start a new adapter from another task's, next to one from scratch, and keep the better.

A parent can harm, so the arm from scratch is always trained too; the one with more right answers
on the validation images is kept, a tie is the scratch arm's. The parent is chosen, and pinned by
its digest, when the training starts: the pipeline does not train again because a champion of
another task moved (``dvc repro -f train@TASK`` does).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from torch import Tensor

from adapterbank.bank.bank import Bank
from adapterbank.bank.features import frozen_split
from adapterbank.config.bank import AUTO_PARENT, NO_PARENT, PARAMS
from adapterbank.errors import InputError, TrainingDiverged
from adapterbank.inference.artifact import ADAPTER_CONFIG, ADAPTER_MODEL
from adapterbank.integrations.mlflow.runs import RunLogger
from adapterbank.methods.base import Adapter
from adapterbank.pipeline.arm import Arm, Note, RunSink, find_checkpoint
from adapterbank.pipeline.parents import (
    Candidate,
    Ranking,
    Target,
    method_tensors,
    rank,
    score_one,
    seen_images,
)
from adapterbank.records import Score
from adapterbank.registry.adapter_config import parse_adapter_config
from adapterbank.registry.versions import Version
from adapterbank.routing.record import as_record, task_record
from adapterbank.training.evaluation import Progress
from adapterbank.training.loop import TrainResult
from adapterbank.training.sinks import Sink

PREFIX = "warm/"  # of the second arm's curves
CHECKPOINT = "warm"  # below the first arm's
DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Watchers:
    """Who is told of a training, and the run that logs it."""

    run: RunLogger
    sinks: Sequence[Sink]
    progress: Progress | None
    note: Note | None

    def say(self, text: str) -> None:
        """Tell a sentence to whoever listens."""
        if self.note is not None:
            self.note(text)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The parent that was chosen for an adapter, or why there is none."""

    asked: str  # auto, or a reference
    ranking: Ranking
    why: str = ""  # there is no parent

    @property
    def parent(self) -> Candidate | None:
        """The candidate to start from."""
        return self.ranking.parent


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of both arms.

    Args:
        arm: the one that is kept.
        result: its training.
        report: scores of both, and where the second one started; for the version's metrics.
        earlier_s: seconds that processes before this one spent on the second arm.
    """

    arm: Arm
    result: TrainResult
    report: dict[str, Any] = field(default_factory=dict)
    earlier_s: float = 0.0


def named_parent(bank: Bank, arm: Arm) -> Version | None:
    """Check what a task's ``warm_start`` asks for before anything is trained.

    Returns:
        The version it names; None where it names none.

    Raises:
        InputError: the version is of another method, has no tensor of equal shape, or has seen
            images that may be validation images now.
        IntegrityError: the version is not what was published.
        UnknownName: no such task, version or alias.
    """
    asked = bank.config.task(arm.config.task).warm_start
    if asked in {NO_PARENT, AUTO_PARENT}:
        return None
    version = bank.registry.resolve(asked)
    files = bank.registry.read(version)
    config = parse_adapter_config(files[ADAPTER_CONFIG], where=str(version))
    problem = seen_images(config, arm.config.task, arm.config.data.digest)
    if config.method.name != arm.config.method.name:
        problem = f"is a {config.method.name} adapter, this task's is {arm.config.method.name}"
    elif problem is None and not copy_tensors(arm.child(bank, "").adapter, _tensors(files)):
        problem = "has no tensor but its head that fits this task's adapter"
    if problem:
        raise InputError(
            f"{PARAMS}: tasks.{arm.config.task}.warm_start: {version} {problem}",
            fix=f"adapterbank transfer rank {arm.config.task}",
        )
    return version


def choose_parent(
    bank: Bank,
    arm: Arm,
    named: Version | None,
    record: Mapping[str, NDArray[np.generic]],
    progress: Progress | None,
) -> Choice | None:
    """Choose what a task's second arm starts from.

    Args:
        bank: the arm's bank.
        arm: from scratch, at its start.
        named: what :func:`named_parent` found.
        record: of the task's frozen features, as its version will have it.
        progress: told of the images that candidates are run on.

    Returns:
        None where no warm start is asked for.

    Raises:
        InputError: the version that is named has no routing record.
    """
    asked = bank.config.task(arm.config.task).warm_start
    if asked == NO_PARENT:
        return None
    target = _target(arm, record)
    if named is not None:
        ranking = score_one(bank.registry, named, arm.backbone, target, progress)
        return Choice(asked=asked, ranking=ranking)
    ranking = rank(bank.registry, arm.backbone, target, progress)
    why = "" if ranking.candidates else "no champion has the same method and shapes"
    return Choice(asked=asked, ranking=ranking, why=why)


def rank_parents(bank: Bank, task: str, progress: Progress | None = None) -> Ranking:
    """Rank the champions of other tasks for a task that is prepared, as a training would.

    Args:
        bank: an open bank with a backbone.
        task: the task to be learned.
        progress: told of the images of each forward.

    Raises:
        InputError: the task is not prepared, or a search that is due has not run.
    """
    arm = Arm.of(bank, task)
    train, val = (
        frozen_split(bank, arm.backbone, task, split, progress=progress)
        for split in ("train", "val")
    )
    classes, blocks = len(arm.data.classes), bank.config.router.recorded(arm.backbone.traits.blocks)
    record = task_record(train.features, train.labels, classes, val.features, blocks)
    return rank(bank.registry, arm.backbone, _target(arm, record), progress)


def run_second_arm(
    bank: Bank, scratch: Arm, result: TrainResult, choice: Choice, watchers: Watchers
) -> Outcome:
    """Train from the parent, if there is one, and keep the better of two arms.

    Args:
        bank: the arms' bank.
        scratch: the first arm, trained; its checkpoint is still kept.
        result: its training.
        choice: the parent.
        watchers: told of the second arm.

    Returns:
        The arm that is kept. One that diverges is not.
    """
    parent, ranking = choice.parent, choice.ranking
    for task in ranking.damaged:
        watchers.say(f"{task} is no candidate: {ranking.left_out[task]}")
    if parent is None:
        watchers.say(f"Trained from scratch only: {choice.why}")
        report: dict[str, Any] = {"asked": choice.asked, "parent": None, "why": choice.why}
        return Outcome(arm=scratch, result=result, report=report)
    ref = f"{parent.version.task}@sha256:{parent.version.digest}"
    arm = scratch.child(bank, ref)
    copied = copy_tensors(arm.adapter, _tensors(bank.registry.read(parent.version)))
    watchers.say(f"From scratch {result.val.score.accuracy:.1%}; now from {parent.version}")
    kept = find_checkpoint(bank.checkpoint(arm.config.task) / CHECKPOINT, arm, watchers.note)
    kept.run_id = watchers.run.run_id
    told = RunSink(watchers.run, refit=False, prefix=PREFIX)
    earlier_s = told.catch_up(kept)
    warm: TrainResult | None = None
    try:
        warm = arm.train((told, *watchers.sinks), watchers.progress, kept)
    except TrainingDiverged as error:
        watchers.say(f"From {parent.version}: {error.message}; the one from scratch is kept")
    report = {"asked": choice.asked, **_origin(parent, ranking, copied), **_scores(result, warm)}
    _log(watchers.run, report)
    better = warm is not None and report["chosen"] == "warm"
    return Outcome(
        arm=arm if better else scratch,
        result=warm if better and warm is not None else result,
        report=report,
        earlier_s=earlier_s,
    )


def copy_tensors(adapter: Adapter, parent: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Copy a parent's method tensors of equal shape into an adapter; its head stays.

    Returns:
        Names of the tensors that were copied.
    """
    own = method_tensors(adapter)
    equal = [name for name in own if name in parent and own[name].shape == parent[name].shape]
    with torch.no_grad():
        for name in equal:
            own[name].copy_(parent[name])
    return tuple(equal)


def is_better(warm: Score, scratch: Score) -> bool:
    """Whether the warm arm is kept: it has more right answers; a tie is the scratch arm's."""
    return warm.accuracy > scratch.accuracy


def epochs_to(correct: int, reached: Sequence[int]) -> int | None:
    """Return the first epoch, from 1, with at least so many right answers, if there is one."""
    return next((n for n, right in enumerate(reached, start=1) if right >= correct), None)


def _target(arm: Arm, record: Mapping[str, NDArray[np.generic]]) -> Target:
    return Target(
        task=arm.config.task,
        method=arm.config.method.name,
        start=arm.adapter,
        record=as_record(record, where=f"the record of {arm.config.task}").last,
        train=arm.data.train,
        digest=arm.config.data.digest,
    )


def _tensors(files: Mapping[str, bytes]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_tensors(files[ADAPTER_MODEL])
    return tensors


def _origin(parent: Candidate, ranking: Ranking, copied: tuple[str, ...]) -> dict[str, Any]:
    return {
        "parent": {"ref": str(parent.version), "digest": parent.version.digest},
        "copied": sorted(copied),
        "distance": round(parent.distance, DIGITS),
        "h_score": {
            "adapted": round(parent.score or 0.0, DIGITS),
            "bare": round(ranking.bare, DIGITS),
            "images": ranking.images,
        },
    }


def _scores(scratch: TrainResult, warm: TrainResult | None) -> dict[str, Any]:
    """Compare two arms on the validation images."""
    report: dict[str, Any] = {
        "scratch": asdict(scratch.val.score),
        "warm": None,
        "gain": None,
        "epochs_to_scratch": None,
        "chosen": "scratch",
    }
    if warm is None:
        return report
    one, other = scratch.val.score, warm.val.score
    return report | {
        "warm": asdict(other),
        "gain": round(other.accuracy - one.accuracy, DIGITS),
        "epochs_to_scratch": epochs_to(one.correct, [epoch.val.correct for epoch in warm.epochs]),
        "chosen": "warm" if is_better(other, one) else "scratch",
    }


def _log(run: RunLogger, report: Mapping[str, Any]) -> None:
    parent, score = report["parent"], report["h_score"]
    figures = {
        "transfer/h_score": score["adapted"],
        "transfer/h_score_bare": score["bare"],
        "transfer/distance": report["distance"],
    }
    if report["gain"] is not None:
        figures["transfer/gain_pp"] = 100 * report["gain"]
    if report["epochs_to_scratch"] is not None:
        figures["transfer/epochs_to_scratch"] = report["epochs_to_scratch"]
    run.epoch(0, figures)
    run.tags(
        {
            "adapterbank.warm_start": report["chosen"],
            "adapterbank.parent": f"{parent['ref']} sha256:{parent['digest']}",
        }
    )
