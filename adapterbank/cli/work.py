"""The stages of a task with their progress shown, for every command that runs them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from adapterbank.cli import progress, render, summary
from adapterbank.text import human_seconds, percent

if TYPE_CHECKING:
    from adapterbank.bank.bank import Bank
    from adapterbank.registry.backbone import BackboneRecord

STORAGE = "ADAPTERBANK_STORAGE"
"""The environment variable that says where searches keep their state."""


def make_ready(bank: Bank, task: str, *, again: bool, quiet: bool) -> None:
    """Fetch the backbone and prepare the images where that was not done as configured now."""
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


def prepare(bank: Bank, task: str, *, quiet: bool) -> dict[str, Any]:
    """Read and split a task's images."""
    from adapterbank.pipeline import prepare

    with progress.bar(f"Preparing {task}", quiet=quiet) as shown:
        result = prepare.prepare(bank, task, progress=shown)
    if not quiet:
        counts = ", ".join(f"{count} {split}" for split, count in result["counts"].items())
        render.note(f"{task}: {result['classes']} classes; images: {counts}")
    return result


def tune_stage(bank: Bank, task: str, *, quiet: bool) -> dict[str, Any] | None:
    """Search a task's hyper-parameters, or note that there is nothing to choose.

    The cluster and the storage are those of ``RAY_ADDRESS`` and ``ADAPTERBANK_STORAGE``, so that
    ``dvc repro`` takes up what ``tune`` found there.
    """
    from adapterbank.bank.plan import is_searched, write_pinned

    if not is_searched(bank, task):
        write_pinned(bank, task)
        if bank.config.active.search is not None and not quiet:
            render.note(nothing_to_search(task))
        return None
    from adapterbank.cli import search_view
    from adapterbank.search.study import Where

    where = Where(storage=os.environ.get(STORAGE) or None)
    return search_view.run(bank, [task], where=where, earlier="renew", quiet=quiet)[0]


def nothing_to_search(task: str) -> str:
    """Say that a task is left out of a search."""
    return f"{task}: nothing to search: its method has no such choice, or the task pins them all"


def train(bank: Bank, task: str, *, quiet: bool) -> dict[str, Any]:
    """Train a task's adapter."""
    from adapterbank.bank.plan import plan_of
    from adapterbank.pipeline.train import train

    plan = plan_of(bank, task)
    label, seen = f"Training {task}", "seen" if plan.refit else "val"
    if plan.winner is not None and not quiet:
        images = "training and validation" if plan.refit else "training"
        render.note(f"{task}: as trial {plan.winner.trial} of its search, on {images} images")
    with (
        progress.bar(f"{task}: frozen features", quiet=quiet) as features,
        progress.TrainingView(label, plan.training.epochs, val=seen, quiet=quiet) as view,
    ):
        # The features come first: their bar must be gone when the other appears, and stay away.
        view.on_start = features.close

        def show(done: int, total: int) -> None:
            if view.on_start is not None:
                features(done, total)

        note = None if quiet else render.note
        return train(bank, task, sinks=(view,), progress=show, note=note)


def evaluate(bank: Bank, task: str, *, quiet: bool) -> dict[str, Any]:
    """Judge a trained adapter and complete its version."""
    from adapterbank.pipeline import evaluate

    with progress.bar(f"Evaluating {task}", quiet=quiet) as shown:
        return evaluate.evaluate(bank, task, progress=shown)


def print_trained(result: dict[str, Any]) -> None:
    """Print what training gave."""
    val, probe = result["val"], result["linear_probe_val"]
    render.line(
        f"{result['task']}: validation {percent(**val)}"
        f" (linear probe {percent(**probe)}),"
        f" {result['parameters']['method']:,} + {result['parameters']['head']:,} parameters,"
        f" {human_seconds(result['seconds'])}"
    )


def print_metrics(task: str, metrics: dict[str, Any]) -> None:
    """Print a version's figures beside the linear probe's."""
    rows = []
    for label, path in (("validation", "val"), ("test", "test")):
        own = summary.score_of(metrics, path)
        probe = summary.score_of(metrics, "linear_probe", path)
        if own is not None and probe is not None:
            rows.append((label, percent(**own), percent(**probe), str(own["total"])))
    render.table((task, ">accuracy", ">linear probe", ">images"), rows)
