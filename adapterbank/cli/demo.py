"""The command behind ``make demo``: build the bank, show that it stands, use it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapterbank.cli import options, render
from adapterbank.cli.audit import audit_text
from adapterbank.cli.bank import task_table
from adapterbank.cli.render import Answer, Table, cell
from adapterbank.text import human_seconds

if TYPE_CHECKING:
    from adapterbank.bank.bank import Bank

app = typer.Typer()


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
    from adapterbank.demo import (
        audit_before_last,
        find_tasks,
        predict_samples,
        training_seconds,
        tuned_bank,
    )
    from adapterbank.inference.predictor import Predictor
    from adapterbank.registry.summary import list_tasks

    opened = tuned_bank(options.bank_root(bank)) if tune else options.open_bank(bank)
    pick_device(device or opened.config.device)  # a wrong name is refused before anything is built
    size = _size(opened)
    built, again = _build(opened, size, as_json=as_json)
    rows = [row for row in list_tasks(opened.registry) if row.version is not None]
    seconds = training_seconds(opened)
    predictor = Predictor(opened.registry, device=device or opened.config.device)
    predictions = predict_samples(opened, predictor, [row.task for row in rows], samples)
    routed = find_tasks(opened, predictor, predictions)
    added, audited = audit_before_last(opened, device)
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
    for after in ("Built in {}. A second dvc repro has nothing to do:", "That took {}."):
        begun = time.perf_counter()
        with render.answers_diverted(divert=as_json):
            repro(bank.root)
        seconds.append(time.perf_counter() - begun)
        render.note("")
        render.note(after.format(human_seconds(seconds[-1])))
    return seconds


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
