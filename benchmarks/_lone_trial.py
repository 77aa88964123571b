"""One trial in a process of its own, without Ray: what a shell loop over configurations runs.

    python -m benchmarks._lone_trial BANK TASK VALUES

VALUES is the configuration as JSON. It loads the backbone and the images from the disk, trains as
a trial does, and prints what came of it and when, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from adapterbank.backbones.loading import pick_device
from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.bank.bank import Bank
from adapterbank.config.bank import TrainConfig
from adapterbank.data.store import load_task
from adapterbank.inference.artifact import build_adapter
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.search.space import split_values
from adapterbank.training.loop import train
from adapterbank.training.recipes import find_recipe
from adapterbank.training.sinks import Epoch

_MIB = 1024**2


class Marks:
    """When a trial got how far, by the clock all processes share, and what its backbone took.

    It is a sink of the training, which tells it of the first step.
    """

    def __init__(self) -> None:
        self.content: dict[str, Any] = {"pid": os.getpid(), "entered": time.time()}

    def note(self, name: str) -> None:
        """Something is done, for the first time."""
        self.content.setdefault(name, time.time())

    def memory(self, name: str, backbone: TimmViT | None = None) -> None:
        """Note resident and private memory, once every weight of the backbone has been read."""
        # The same arithmetic before, for the library's own pages that it needs.
        read = [torch.zeros(100)] if backbone is None else backbone.state_dict().values()
        float(sum(tensor.sum() for tensor in read))
        found = psutil.Process().memory_full_info()
        self.content[name] = {
            "rss": found.rss / _MIB, "pss": found.pss / _MIB, "uss": found.uss / _MIB
        }  # fmt: skip

    def step(self, done: int, total: int) -> None:
        """Note the first step."""
        del done, total
        self.note("step")

    def epoch(self, epoch: Epoch) -> None:
        """Keep the last epoch's answers."""
        self.content["correct"] = epoch.val.correct


def main() -> None:
    """Train once and print."""
    root, task, text = sys.argv[1:]
    marks = Marks()
    torch.set_num_threads(1)  # as a trial with one processor
    bank = Bank.open(Path(root))
    hyper, settings = split_values(json.loads(text))
    section = bank.config.task(task)
    training = TrainConfig.model_validate({**bank.config.training(task).model_dump(), **settings})
    marks.memory("before")
    backbone = load_bank_backbone(bank.registry, pick_device(training.device))
    marks.note("backbone")
    marks.memory("after", backbone)
    data = load_task(bank.data(task), spec=backbone.spec)
    marks.note("data")
    adapter = build_adapter(
        section.method, {**section.hyper, **hyper}, backbone.traits, len(data.classes),
        seed=section.seed, where="a lone trial",
    )  # fmt: skip
    recipe = find_recipe(training, section.method)
    train(backbone, data, adapter, recipe, training, seed=section.seed, sinks=(marks,))
    sys.stdout.write(json.dumps(marks.content) + "\n")


if __name__ == "__main__":
    main()
