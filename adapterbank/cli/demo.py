"""The command behind ``make demo``: build the bank, show that it stands, use it."""

from __future__ import annotations

import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapterbank.cli import options, render
from adapterbank.cli.audit import audit_text
from adapterbank.cli.bank import task_table
from adapterbank.cli.render import Answer, Table, cell
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
    device: options.BankDevice = None,
    bank: options.BankDir = None,
    *,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="In out/tune-demo instead: two tasks with a search first."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Build this bank and use it.

    Runs `dvc repro` twice, shows the tasks, predicts on images that no adapter was trained on, has
    the router find the task of some of them and of a photograph of no task, and audits the versions
    that were published before the last task.
    --device is of what comes after `dvc repro`, which trains where train.device says.
    """
    from adapterbank.backbones.loading import pick_device
    from adapterbank.inference.predictor import Predictor
    from adapterbank.registry.summary import list_tasks

    opened = _tuned_bank(options.bank_root(bank)) if tune else options.open_bank(bank)
    pick_device(device or opened.config.device)  # a wrong name is refused before anything is built
    size = _size(opened)
    built, again = _build(opened, size, as_json=as_json)
    rows = [row for row in list_tasks(opened.registry) if row.version is not None]
    seconds = _seconds(opened)
    predictor = Predictor(opened.registry, device=device or opened.config.device)
    predictions = _predict(opened, predictor, [row.task for row in rows], samples)
    routed = _route(opened, predictor, predictions)
    added, audited = _audit(opened, device)
    content = {
        "profile": opened.config.profile,
        "build_seconds": built,
        "again_seconds": again,
        "tasks": [{**vars(row), "train_seconds": seconds.get(row.task)} for row in rows],
        "predictions": predictions,
        "routed": routed,
        "added": added,
        "audit": audited.as_json(),
    }
    store = f"sqlite:///{opened.root / 'mlflow.db'}"
    text = [
        task_table(rows, seconds),
        f"On test images, {size}. Parameters: of the method + of the head.",
        "",
        _table(predictions, ("task", ">probability", "true class"), "label", "{probability:.1%}"),
        "The same without naming the task, and a photograph of none:",
        _table(routed, ("task found", ">p", "true task"), "task", "{p_value:.3f}"),
        f"{added} came last. What had been published before it is what it was:",
        *audit_text(audited),
        "",
        f"Try: adapterbank predict --task auto out/samples/{added}",
        f"Runs and versions in MLflow: mlflow ui --backend-store-uri {store}",
    ]
    render.answer(Answer(content, text), as_json=as_json)


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


def _size(bank: Bank) -> str:
    active = bank.config.active
    train, test = (
        "all" if limit is None else limit for limit in (active.limits.train, active.limits.test)
    )
    return (
        f"profile {bank.config.profile}: {train} training and {test} test images a task,"
        f" {active.train.epochs} epochs"
    )


def _build(bank: Bank, size: str, *, as_json: bool) -> list[float]:
    """Run the pipeline twice and return the seconds that each took."""
    from adapterbank.integrations.dvc.repo import ensure_dvc, repro
    from adapterbank.integrations.git import git_holds

    small = "; small, so the figures show that it works, not how good it gets"
    small = small if bank.config.profile == "demo" else ""
    render.note(f"Building {len(bank.config.tasks)} tasks, {size}{small}.")
    ensure_dvc(bank.root, git=git_holds(bank.root))
    seconds: list[float] = []
    for after in ("\nBuilt in {}. A second dvc repro has nothing to do:", "That took {}.\n"):
        begun = time.perf_counter()
        with render.answers_diverted(divert=as_json):
            repro(bank.root)
        seconds.append(time.perf_counter() - begun)
        render.note(after.format(human_seconds(seconds[-1])))
    return seconds


def _seconds(bank: Bank) -> dict[str, float]:
    """How long each task trained, as its stage noted it."""
    from adapterbank.bank.bank import read_json

    notes = {task: bank.note(task, "run.json") for task in bank.config.tasks}
    return {
        task: float(read_json(path, fix=f"dvc repro train@{task}")["seconds"])
        for task, path in notes.items()
        if path.is_file()
    }


def _predict(
    bank: Bank, predictor: Predictor, tasks: list[str], samples: int
) -> list[dict[str, Any]]:
    from adapterbank.bank.samples import write_samples

    predictions = []
    for task in tasks:
        written = write_samples(bank, task, samples, bank.root / "out" / "samples" / task)
        answers = predictor.predict([path for path, _ in written], task=task)
        predictions += [
            {
                "image": str(path.relative_to(bank.root)),
                "task": task,
                "truth": truth,
                "label": answer.label,
                "probability": answer.probability,
                "latency_ms": answer.latency_ms,
            }
            for (path, truth), answer in zip(written, answers, strict=True)
        ]
    return predictions


def _route(
    bank: Bank, predictor: Predictor, predictions: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Answer the first image of each task, and one of none, without saying whose they are."""
    from adapterbank.records import AUTO, Prediction

    first = {answer["task"]: answer["image"] for answer in reversed(predictions)}
    images = {bank.root / image: task for task, image in first.items()}
    answers = predictor.predict([*images, _unknown_image(bank)], task=AUTO)
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


def _unknown_image(bank: Bank) -> Path:
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


def _table(
    answers: list[dict[str, Any]], columns: tuple[str, str, str], asked: str, figure: str
) -> Table:
    """Make a table of answers, each with whether what was asked for is the truth."""
    task, number, truth = columns
    rows = [
        (
            answer["image"],
            answer["task"] or "unknown",
            cell(answer["label"]),
            figure.format_map(answer),
            f"{'✓' if answer[asked] == answer['truth'] else '✗'} {answer['truth'] or 'none'}",
        )
        for answer in answers
    ]
    return Table(("image", task, "answer", number, truth), rows)
