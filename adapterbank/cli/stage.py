"""The stages of ``dvc.yaml`` with their progress, for every command that runs one.

``stage`` itself is hidden, because ``dvc repro`` calls it.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from adapterbank.cli import options, progress, render
from adapterbank.cli.render import Answer, Table
from adapterbank.data.left_out import LeftOut, sentences
from adapterbank.errors import InputError
from adapterbank.text import human_seconds, percent, short_digest

if TYPE_CHECKING:
    from adapterbank.bank.bank import Bank
    from adapterbank.pipeline.release import ReleaseReport
    from adapterbank.registry.backbone import BackboneRecord
    from adapterbank.search.study import SearchResult

app = typer.Typer()


class Stage(StrEnum):
    """The stages of ``dvc.yaml``."""

    BACKBONE = "backbone"
    PREPARE = "prepare"
    TUNE = "tune"
    TRAIN = "train"
    EVALUATE = "evaluate"
    REGISTER = "register"
    RELEASE = "release"


@app.command("stage", hidden=True)
def stage(
    name: Annotated[Stage, typer.Argument(metavar="NAME")],
    task: Annotated[str | None, typer.Argument(metavar="TASK")] = None,
    device: options.BankDevice = None,
    *,
    accept_classes: options.AcceptClasses = False,
    as_json: options.Json = False,
) -> None:
    """Run one stage of dvc.yaml, as `dvc repro` does, in the bank of the current folder.

    --device and --accept-classes are of the release alone; for the others train.device of the task
    says where.
    """
    from adapterbank.config.bank import find_stage_bank

    opened = options.open_bank(find_stage_bank())
    if task is not None:  # DVC calls the stage prepare@dtd; a name in cmd would be the shell's
        task = task.rpartition(f"{name.value}@")[2]
    whole = name in {Stage.BACKBONE, Stage.RELEASE}
    if whole != (task is None):
        raise InputError(f"stage {name}: {'takes no task' if whole else 'needs a task'}")
    if device is not None and name is not Stage.RELEASE:
        raise InputError(f"stage {name} takes no --device: train.device of the task says where")
    if accept_classes and name is not Stage.RELEASE:
        raise InputError(f"stage {name} takes no --accept-classes: only a release judges them")
    if task is not None:
        opened.config.task(task)
        run = {
            Stage.PREPARE: prepare,
            Stage.TUNE: tune,
            Stage.TRAIN: train,
            Stage.EVALUATE: evaluate,
            Stage.REGISTER: register,
        }[name]
        answer = run(opened, task, quiet=as_json)
    elif name is Stage.RELEASE:
        answer = release(opened, device=device, accept_classes=accept_classes, quiet=as_json)
    else:
        record = fetch(opened, quiet=as_json)
        answer = Answer({"uri": record.uri, "fingerprint": record.fingerprint})
    content = {"stage": name.value, **answer.content}
    render.answer(replace(answer, content=content), as_json=as_json)


def make_ready(bank: Bank, task: str, *, again: bool = False, quiet: bool) -> None:
    """Fetch the backbone and prepare the images where that was not done as configured now.

    Args:
        bank: an open bank.
        task: one of its tasks.
        again: prepare the images whether that was done or not.
        quiet: write nothing to a log.
    """
    from adapterbank.bank.ready import backbone_is_ready, data_is_ready

    if not backbone_is_ready(bank):
        fetch(bank, quiet=quiet)
    if again or not data_is_ready(bank, task):
        prepare(bank, task, quiet=quiet)


def fetch(bank: Bank, *, force: bool = False, quiet: bool) -> BackboneRecord:
    """Put the backbone in place."""
    with progress.spinner(f"Fetching {bank.config.backbone.uri}", quiet=quiet):
        from adapterbank.pipeline.backbone import fetch_backbone

        return fetch_backbone(bank, force=force)


def prepare(bank: Bank, task: str, *, quiet: bool) -> Answer:
    """Read and split a task's images."""
    from adapterbank.pipeline.prepare import prepare

    with progress.bar(f"Preparing {task}", quiet=quiet) as bar:
        result = prepare(bank, task, progress=bar)
    if not quiet:
        counts = ", ".join(f"{count} {split}" for split, count in result["counts"].items())
        render.note(f"{task}: {result['classes']} classes; images: {counts}")
        for line in sentences(LeftOut(**one) for one in result["left_out"]):
            render.note(line)
    return Answer(result)


def tune(bank: Bank, task: str, *, quiet: bool) -> Answer:
    """Search a task's hyper-parameters, or note that there is nothing to choose."""
    from adapterbank.cli import search_view
    from adapterbank.pipeline.tune import tune

    def search(view: search_view.SearchView) -> list[SearchResult]:
        result = tune(bank, task, view, view.note)
        return [] if result is None else [result]

    answers = search_view.run(task, search, quiet=quiet)
    if answers:
        return replace(answers[0], content={"task": task, "search": answers[0].content})
    if bank.config.active.search is not None and not quiet:
        render.note(nothing_to_search(task))
    return Answer({"task": task, "search": None})


def nothing_to_search(task: str) -> str:
    """Say that a task is left out of a search."""
    return f"{task}: nothing to search: its method has no such choice, or the task pins them all"


def train(bank: Bank, task: str, *, quiet: bool) -> Answer:
    """Train a task's adapter."""
    from adapterbank.bank.plan import plan_of
    from adapterbank.pipeline.train import train

    plan = plan_of(bank, task)
    label, val = f"Training {task}", "seen" if plan.refit else "val"
    if plan.winner is not None and not quiet:
        images = "training and validation" if plan.refit else "training"
        render.note(f"{task}: as trial {plan.winner.trial} of its search, on {images} images")
    with (
        progress.bar(f"{task}: frozen features", quiet=quiet) as features,
        closing(progress.TrainingView(label, plan.training.epochs, val=val, quiet=quiet)) as view,
    ):
        # The features come first: their bar must be gone when the other appears, and stay away.
        view.on_start = features.close

        def show(done: int, total: int) -> None:
            if view.on_start is not None:
                features(done, total)

        note = None if quiet else render.note
        result = train(bank, task, sinks=(view,), progress=show, note=note)
    parameters = "{method:,} + {head:,}".format_map(result["parameters"])
    by = f" ({result['val_by']})" if result["val_by"] else ""
    text = (
        f"{task}: validation {percent(**result['val'])}{by}"
        f" (linear probe {percent(**result['linear_probe_val'])}),"
        f" {parameters} parameters, {human_seconds(result['seconds'])}"
    )
    return Answer(result, [text])


def evaluate(bank: Bank, task: str, *, quiet: bool) -> Answer:
    """Judge a trained adapter beside the linear probe, and complete its version."""
    from adapterbank.pipeline.evaluate import evaluate
    from adapterbank.registry.summary import score_of

    with progress.bar(f"Evaluating {task}", quiet=quiet) as bar:
        metrics = evaluate(bank, task, progress=bar)
    rows = []
    for label, split in (("validation", "val"), ("test", "test")):
        score, probe = score_of(metrics, split), score_of(metrics, "linear_probe", split)
        if score is not None and probe is not None:
            rows.append((label, render.share(score), render.share(probe), str(score.total)))
    table = Table((task, ">accuracy", ">linear probe", ">images"), rows)
    told: list[str | Table] = [table]
    if "by" in metrics["val"]:
        told.append(f"Validation: {metrics['val']['by']}")
    return Answer({"task": task, "metrics": metrics}, told)


def register(bank: Bank, task: str, *, quiet: bool) -> Answer:  # noqa: ARG001  # takes no time
    """Publish a completed version."""
    from adapterbank.pipeline.register import register

    version = register(bank, task)
    text = f"{version} is registered: sha256:{short_digest(version.digest)}"
    return Answer(render.version_json(version), [text])


def release(bank: Bank, *, device: str | None, accept_classes: bool = False, quiet: bool) -> Answer:
    """Judge new versions and serve what passes."""
    from adapterbank.pipeline.release import release

    with progress.bar("Judging new versions", quiet=quiet) as bar:

        def show(report: ReleaseReport) -> None:  # also of a release that then fails
            bar.close()
            rows = [(v.task, str(v.version), v.outcome, v.reason) for v in report.verdicts]
            table = Table(("task", ">version", "outcome", "why"), rows)
            if not quiet:
                render.answer(Answer({}, [table], report.notes), as_json=False)

        report = release(
            bank, progress=bar, show=show, device=device, accept_classes=accept_classes
        )
    return Answer({"verdicts": [verdict.as_json() for verdict in report.verdicts]})
