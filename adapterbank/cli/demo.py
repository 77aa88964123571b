"""The command behind ``make demo``: build the bank, show that it stands, use it."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapterbank.cli import _options, _render, _summary
from adapterbank.cli.tasks import write_samples

if TYPE_CHECKING:
    from adapterbank.continual.bank import Bank

__all__ = ["app"]

app = typer.Typer()


TUNED = ("digits", "location")
"""Tasks of ``demo --tune``: scans and drawings, an easy one and one that adapters gain most on."""


@app.command("demo")
def demo(
    samples: Annotated[int, typer.Option(min=1, max=100, help="Predictions a task.")] = 3,
    bank: _options.BankDir = None,
    *,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="In out/tune-demo instead: two tasks with a search first."),
    ] = False,
    as_json: _options.Json = False,
) -> None:
    """Build this bank and use it.

    Runs `dvc repro` twice, shows the tasks, and predicts on images no adapter was trained on.
    """
    from adapterbank.integrations.dvc_repo import ensure_dvc
    from adapterbank.integrations.git import git_holds

    opened = _tuned_bank(_options.bank_root(bank)) if tune else _options.open_bank(bank)
    note = _render.note
    profile = opened.config.profile
    limits, training = opened.config.active.limits, opened.config.active.train
    size = (
        f"profile {profile}: {_limit(limits.train)} training and {_limit(limits.test)} test images"
        f" a task, {training.epochs} epochs"
    )
    small = "; small, so the figures show that it works, not how good it gets"
    note(f"Building {len(opened.config.tasks)} tasks, {size}{small * (profile == 'demo')}.")
    ensure_dvc(opened.root, git=git_holds(opened.root))
    built = _repro(opened, divert=as_json)
    note(f"\nBuilt in {_render.human_seconds(built)}. A second dvc repro has nothing to do:")
    again = _repro(opened, divert=as_json)
    rows = [row for row in _summary.list_tasks(opened.registry) if row["version"] is not None]
    seconds = _seconds(opened)
    predictions = _predict(opened, [row["task"] for row in rows], samples)
    if as_json:
        for row in rows:
            row["train_seconds"] = seconds.get(row["task"])
        content = {"profile": profile, "build_seconds": built, "again_seconds": again}
        _render.print_json({**content, "tasks": rows, "predictions": predictions})
        return
    note(f"That took {_render.human_seconds(again)}.\n")
    _summary.print_tasks(rows, seconds)
    _render.line(f"On test images, {size}. Parameters: of the method + of the head.")
    _render.line()
    _print_predictions(opened, predictions)


def _tuned_bank(root: Path) -> Bank:
    """Make the bank of ``demo --tune``, or open it again."""
    from adapterbank.config import PARAMS
    from adapterbank.continual.bank import Bank
    from adapterbank.continual.params_file import add_task
    from adapterbank.durable import replace_file
    from adapterbank.integrations.scaffold import init_bank

    there = root / "out" / "tune-demo"
    init_bank(there, git=False)
    params = there / PARAMS
    text = params.read_text(encoding="utf-8")
    replace_file(params, text.replace("profile: full", "profile: tune-demo").encode())
    for name in TUNED:
        if name not in Bank.open(there).config.tasks:
            add_task(there, name, {"data": f"embedded://{name}", "method": "vapt"})
    return Bank.open(there)


def _repro(bank: Bank, *, divert: bool) -> float:
    """Run the pipeline and return the seconds it took."""
    from adapterbank.integrations.dvc_repo import repro

    begun = time.perf_counter()
    with _render.answers_diverted() if divert else nullcontext():
        repro(bank.root)
    return time.perf_counter() - begun


def _limit(count: int | None) -> str:
    return "all" if count is None else str(count)


def _seconds(bank: Bank) -> dict[str, float]:
    """How long each task trained, as its stage noted it."""
    from adapterbank.continual.bank import read_json

    found = {}
    for task in bank.config.tasks:
        path = bank.note(task, "run.json")
        if path.is_file():
            found[task] = float(read_json(path, fix=f"dvc repro train@{task}")["seconds"])
    return found


def _predict(bank: Bank, tasks: list[str], samples: int) -> list[dict[str, Any]]:
    from adapterbank.inference.predictor import Predictor

    predictor = Predictor(bank.registry)
    found = []
    for task in tasks:
        written = write_samples(bank, task, samples, bank.root / "out" / "samples" / task)
        answers = predictor.predict([path for path, _ in written], task=task)
        for (path, truth), answer in zip(written, answers, strict=True):
            found.append(
                {
                    "image": str(path.relative_to(bank.root)),
                    "task": task,
                    "truth": truth,
                    "label": answer.label,
                    "probability": answer.probability,
                    "latency_ms": answer.latency_ms,
                }
            )
    return found


def _print_predictions(bank: Bank, predictions: list[dict[str, Any]]) -> None:
    _render.table(
        ("image", "task", "answer", ">probability", "true class"),
        [
            (
                one["image"],
                one["task"],
                one["label"],
                f"{one['probability']:.1%}",
                f"{'✓' if one['label'] == one['truth'] else '✗'} {one['truth']}",
            )
            for one in predictions
        ],
    )
    if predictions:
        first = predictions[0]
        _render.line(f"Try: adapterbank predict --task {first['task']} out/samples/{first['task']}")
    _render.line(f"Runs and versions in MLflow: mlflow ui --backend-store-uri "
                 f"sqlite:///{bank.root / 'mlflow.db'}")  # fmt: skip
