"""The command behind ``make demo``: build the bank, show that it stands, use it."""

from __future__ import annotations

import time
from contextlib import nullcontext
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapterbank.cli import options, render, summary
from adapterbank.cli.audit import print_audit
from adapterbank.cli.tasks import write_samples
from adapterbank.text import human_seconds

if TYPE_CHECKING:
    from adapterbank.bank.bank import Bank
    from adapterbank.continual.audit import AuditReport
    from adapterbank.inference.predictor import Predictor

app = typer.Typer()


TUNED = ("digits", "location")
"""Tasks of ``demo --tune``: scans and drawings, an easy one and one that adapters gain most on."""


@app.command("demo")
def demo(
    samples: Annotated[int, typer.Option(min=1, max=100, help="Predictions a task.")] = 3,
    device: options.Device = None,
    bank: options.BankDir = None,
    *,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="In out/tune-demo instead: two tasks with a search first."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Build this bank and use it.

    Runs `dvc repro` twice, shows the tasks, predicts on images no adapter was trained on, has the
    router find the task of some and of a stranger, and audits what was there before the last task.
    --device is of what comes after `dvc repro`, which trains where train.device says.
    """
    from adapterbank.backbones.loading import pick_device
    from adapterbank.inference.predictor import Predictor
    from adapterbank.integrations.dvc.repo import ensure_dvc
    from adapterbank.integrations.git import git_holds

    opened = _tuned_bank(options.bank_root(bank)) if tune else options.open_bank(bank)
    pick_device(device or opened.config.device)  # a wrong name is told before anything is built
    note = render.note
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
    note(f"\nBuilt in {human_seconds(built)}. A second dvc repro has nothing to do:")
    again = _repro(opened, divert=as_json)
    rows = [row for row in summary.list_tasks(opened.registry) if row["version"] is not None]
    seconds = _seconds(opened)
    predictor = Predictor(opened.registry, device=device or opened.config.device)
    predictions = _predict(opened, predictor, [row["task"] for row in rows], samples)
    routed = _route(opened, predictor, predictions)
    added, audited = _audit(opened, device)
    if as_json:
        for row in rows:
            row["train_seconds"] = seconds.get(row["task"])
        content = {"profile": profile, "build_seconds": built, "again_seconds": again}
        content |= {"tasks": rows, "predictions": predictions, "routed": routed}
        render.print_json({**content, "added": added, "audit": audited.as_json()})
        return
    note(f"That took {human_seconds(again)}.\n")
    summary.print_tasks(rows, seconds)
    render.line(f"On test images, {size}. Parameters: of the method + of the head.")
    render.line()
    _print_predictions(predictions)
    _print_routed(routed)
    _print_audit(added, audited)
    render.line(f"Try: adapterbank predict --task auto out/samples/{added}")
    render.line(f"Runs and versions in MLflow: mlflow ui --backend-store-uri "
                 f"sqlite:///{opened.root / 'mlflow.db'}")  # fmt: skip


def _tuned_bank(root: Path) -> Bank:
    """Make the bank of ``demo --tune``, or open it again."""
    from adapterbank.bank.bank import Bank
    from adapterbank.bank.scaffold import init_bank
    from adapterbank.config.bank import PARAMS
    from adapterbank.config.params_file import add_task
    from adapterbank.durable import replace_file

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
    from adapterbank.integrations.dvc.repo import repro

    begun = time.perf_counter()
    with render.answers_diverted() if divert else nullcontext():
        repro(bank.root)
    return time.perf_counter() - begun


def _limit(count: int | None) -> str:
    return "all" if count is None else str(count)


def _seconds(bank: Bank) -> dict[str, float]:
    """How long each task trained, as its stage noted it."""
    from adapterbank.bank.bank import read_json

    found = {}
    for task in bank.config.tasks:
        path = bank.note(task, "run.json")
        if path.is_file():
            found[task] = float(read_json(path, fix=f"dvc repro train@{task}")["seconds"])
    return found


def _predict(
    bank: Bank, predictor: Predictor, tasks: list[str], samples: int
) -> list[dict[str, Any]]:
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


def _route(
    bank: Bank, predictor: Predictor, predictions: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Answer the first image of each task, and one of none, without saying whose they are."""
    from adapterbank.records import AUTO, Prediction

    first = {one["task"]: one["image"] for one in reversed(predictions)}
    images = {bank.root / image: task for task, image in first.items()}
    answers = predictor.predict([*images, _stranger(bank)], task=AUTO)
    return [
        {
            "image": str(Path(answer.image).relative_to(bank.root)),
            "truth": images.get(Path(answer.image)),
            "task": answer.task if isinstance(answer, Prediction) else None,
            "label": answer.label if isinstance(answer, Prediction) else None,
            "p_value": None if answer.route is None else answer.route.p_value,
        }
        for answer in answers
    ]


def _stranger(bank: Bank) -> Path:
    """A photograph that belongs to no task: one that scikit-image ships."""
    path = bank.root / "out" / "samples" / "rocket.jpg"
    path.write_bytes(resources.files("skimage").joinpath("data", path.name).read_bytes())
    return path


def _audit(bank: Bank, device: str | None) -> tuple[str, AuditReport]:
    """Audit what was published before the task that came last, which is named too."""
    from adapterbank.continual.audit import audit

    registered = [
        (event.time, f"{task}@{event.to_version}")
        for task in bank.registry.tasks()
        for event in bank.registry.history(task)
        if event.action == "register"
    ]
    added = max(registered)[1]
    return added.partition("@")[0], audit(bank, before=added, device=device)


def _print_predictions(predictions: list[dict[str, Any]]) -> None:
    render.table(
        ("image", "task", "answer", ">probability", "true class"),
        [
            (
                one["image"],
                one["task"],
                one["label"],
                f"{one['probability']:.1%}",
                _checked(one["label"] == one["truth"], one["truth"]),
            )
            for one in predictions
        ],
    )


def _print_routed(routed: list[dict[str, Any]]) -> None:
    render.line("The same without being told the task, and a photograph of none:")
    render.table(
        ("image", "task found", "answer", ">p", "true task"),
        [
            (
                one["image"],
                one["task"] or "none known",
                one["label"] or "–",
                f"{one['p_value']:.3f}",
                _checked(one["task"] == one["truth"], one["truth"] or "none"),
            )
            for one in routed
        ],
    )


def _print_audit(added: str, report: AuditReport) -> None:
    render.line(f"{added} came last. What had been published before it is what it was:")
    print_audit(report)
    render.line()


def _checked(right: bool, truth: str) -> str:  # noqa: FBT001  # the only thing it is about
    return f"{'✓' if right else '✗'} {truth}"
