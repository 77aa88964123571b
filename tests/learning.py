"""A bank that learns tasks of drawn colours, its pipeline run in this process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from adapterbank.bank.bank import Bank
from adapterbank.bank.plan import write_pinned
from adapterbank.bank.ready import backbone_is_ready
from adapterbank.pipeline import backbone, evaluate, prepare, register
from adapterbank.pipeline.release import release
from adapterbank.pipeline.train import train
from tests.cli_samples import PARAMS
from tests.router_bank import picture

ENTRIES: tuple[Mapping[str, Any], ...] = (
    {"task": "reds", "data": "photos/reds", "method": "linear"},
    {"task": "greens", "data": "photos/greens", "method": "linear", "domain_of": "reds"},
    {"task": "blues", "data": "photos/blues", "method": "linear", "classes": ["thin", "wide"]},
    {"task": "reds", "data": "photos/reds-new", "method": "linear"},
)


def new_bank(root: Path) -> Bank:
    """Make a bank without tasks, and the images of those it will learn."""
    path = root / "pipelines" / "params.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(PARAMS[: PARAMS.index("tasks:")] + "tasks: {} # none yet\n")
    for folder in ("reds", "greens", "blues", "reds-new"):
        task, _, new = folder.partition("-")
        for label, name in enumerate(("thin", "wide")):
            (root / "photos" / folder / name).mkdir(parents=True)
            for number in range(24):
                drawn = picture(task, label, number + 100 * bool(new))
                drawn.save(root / "photos" / folder / name / f"{number:02}.png")
    return Bank.open(root)


def write_scenario(root: Path, entries: Iterable[Mapping[str, Any]] = ENTRIES) -> Path:
    """Write a scenario beside a bank's folders."""
    path = root / "scenario.yaml"
    path.write_text(yaml.safe_dump({"tasks": [dict(entry) for entry in entries]}, sort_keys=False))
    return path


def run_pipeline(root: Path, *, until: str = "release") -> None:
    """Do what ``dvc repro`` does: run what changed since it last ran, then release."""
    bank = Bank.open(root)
    if not backbone_is_ready(bank):
        backbone.fetch_backbone(bank)
    for task, section in bank.config.tasks.items():
        note = bank.note(task, "section.json")
        wanted = json.dumps(section.model_dump())
        if note.is_file() and note.read_text() == wanted:
            continue
        prepare.prepare(bank, task)
        write_pinned(bank, task)
        train(bank, task)
        evaluate.evaluate(bank, task)
        register.register(bank, task)
        note.write_text(wanted)
    if until == "release":
        release(bank)
