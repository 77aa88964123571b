"""The demonstration: what it asks of its bank once the pipeline has built it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from adapterbank.bank.bank import RUN, Bank, read_run
from adapterbank.bank.samples import write_samples
from adapterbank.bank.scaffold import init_bank
from adapterbank.config.bank import PARAMS
from adapterbank.config.params_file import add_task
from adapterbank.continual.audit import AuditReport, audit
from adapterbank.durable import replace_file
from adapterbank.inference.predictor import Predictor
from adapterbank.records import AUTO, Prediction

TUNED = ("digits", "location")
"""Tasks of ``demo --tune``: scans and drawings, an easy one and one that adapters gain most on."""


def tuned_bank(root: Path) -> Bank:
    """Make the bank of ``demo --tune`` below a folder, or open it again."""
    there = root / "out" / "tune-demo"
    init_bank(there, git=False)
    params = there / PARAMS
    text = params.read_text(encoding="utf-8")
    replace_file(params, text.replace("profile: full", "profile: tune-demo").encode())
    for name in TUNED:
        if name not in Bank.open(there).config.tasks:
            add_task(there, name, {"data": f"embedded://{name}", "method": "vapt"})
    return Bank.open(there)


def training_seconds(bank: Bank) -> dict[str, float]:
    """Read how long each task trained, as its stage noted it."""
    trained = (task for task in bank.config.tasks if bank.note(task, RUN).is_file())
    return {task: read_run(bank, task).seconds for task in trained}


def predict_samples(
    bank: Bank, predictor: Predictor, tasks: Sequence[str], samples: int
) -> list[dict[str, Any]]:
    """Write a few test images of each task, which no adapter was trained on, and answer them."""
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


def find_tasks(
    bank: Bank, predictor: Predictor, predictions: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Answer the first image of each task, and one of none, without saying whose they are."""
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


def audit_before_last(bank: Bank, device: str | None) -> tuple[str, AuditReport]:
    """Audit what was published before the task that came last, which is named too."""
    registered = [
        (event.time, f"{task}@{event.to_version}")
        for task in bank.registry.tasks()
        for event in bank.registry.history(task)
        if event.action == "register"
    ]
    added = max(registered)[1]
    return added.partition("@")[0], audit(bank, before=added, device=device)
