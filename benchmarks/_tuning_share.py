"""What sharing across trials could save: the part before the first adapted block, a head's start.

VAPT's prompts enter at block 0, so all that trials have in common is the patch embedding.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.bank.bank import Bank
from adapterbank.config.bank import TrainConfig
from adapterbank.data.base import TaskData
from adapterbank.data.images import normalise
from adapterbank.data.store import load_task, stored_digest
from adapterbank.inference.artifact import build_adapter
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.methods.base import Adapter, Dropout
from adapterbank.model.forward import forward
from adapterbank.search.storage import Storage
from adapterbank.search.trial import Brief, _start_head
from adapterbank.training.recipes import build_optimizer, find_recipe
from benchmarks._machine import interleaved_medians
from benchmarks._tuning_bank import METHOD, Report, Setting


def measure(setting: Setting, rounds: int) -> Report:
    """Time a step, a forward and their common part, and both ways to start a head, turn by turn."""
    torch.set_num_threads(1)  # as a trial
    bank = setting.prepare()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = load_bank_backbone(bank.registry, device)
    figures: list[dict[str, Any]] = []
    for task in setting.tasks:
        data = load_task(bank.data(task), spec=backbone.spec)
        adapter = build_adapter(METHOD, {}, backbone.traits, len(data.classes), seed=0,
                                where="the benchmark").to(device)  # fmt: skip
        steps = _steps(backbone, data, adapter, setting.batch)
        # Apart: a head's start takes seconds and would push everything else out of the caches.
        times = interleaved_medians(steps, rounds)
        heads = _heads(bank, task, backbone, data)
        times |= interleaved_medians(heads, max(1, rounds // 3), warm_up=1)
        epoch_s = times["step"] * -(-len(data.train) // setting.batch)
        figures.append({"task": task, **times, "epoch": epoch_s})
    height, width = backbone.spec.size
    tokens = backbone.traits.grid[0] * backbone.traits.grid[1] + backbone.traits.prefix_tokens
    kib = (3 * height * width / 1024, 4 * tokens * backbone.traits.width / 1024)
    return Report(
        title=f"milliseconds, batch {setting.batch}, medians of {rounds} rounds; an image takes"
        f" {kib[0]:.0f} KiB as pixels, {kib[1]:.0f} KiB embedded",
        columns=("task", "embedding", "step", "share", "forward", "share", "head fitted", "loaded",
                 "saved, epochs"),
        rows=tuple(_row(one) for one in figures),
        figures=figures,
    )  # fmt: skip


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    common = found["embedding"]
    saved = (found["head fitted"] - found["head loaded"]) / found["epoch"]
    return (
        found["task"],
        f"{1e3 * common:.2f}",
        f"{1e3 * found['step']:.1f}", f"{common / found['step']:.1%}",
        f"{1e3 * found['forward']:.1f}", f"{common / found['forward']:.1%}",
        f"{1e3 * found['head fitted']:.0f}", f"{1e3 * found['head loaded']:.1f}", f"{saved:.2f}",
    )  # fmt: skip


def _steps(
    backbone: TimmViT, data: TaskData, adapter: Adapter, batch: int
) -> dict[str, Callable[[], object]]:
    """A training step as the loop takes it, a forward as validation does, and their start."""
    recipe = find_recipe(TrainConfig(batch_size=batch), METHOD)
    optimizer = build_optimizer(recipe, adapter, batch)
    dropout = Dropout(torch.Generator(backbone.device).manual_seed(0))
    pixels = data.train.images[:batch].to(backbone.device)
    labels = data.train.labels[:batch].to(backbone.device)

    def embedding() -> None:
        with torch.inference_mode():
            backbone.embed(normalise(pixels, backbone.spec))

    def step() -> None:
        optimizer.zero_grad()
        logits = forward(backbone, normalise(pixels, backbone.spec), adapter.fold(), dropout)
        torch.autograd.backward(functional.cross_entropy(logits, labels))
        torch.nn.utils.get_total_norm([p.grad for p in adapter.parameters() if p.grad is not None])
        optimizer.step()

    def validate() -> None:
        with torch.inference_mode():
            forward(backbone, normalise(pixels, backbone.spec), adapter.fold())

    return {"embedding": embedding, "step": step, "forward": validate}


def _heads(
    bank: Bank, task: str, backbone: TimmViT, data: TaskData
) -> dict[str, Callable[[], object]]:
    """The head's start as a trial gets it: fitted and kept, or what another trial kept."""
    folder = bank.note(task, "heads-of-benchmark")
    brief = Brief(
        task=task, method=METHOD, hyper={}, training={}, seed=0, classes=data.classes,
        data=stored_digest(bank.data(task)), storage=str(folder),
    )  # fmt: skip

    def start(where: Path) -> None:
        # From the same adapter each time, for the head is part of what it is looked up by.
        fresh = build_adapter(METHOD, {}, backbone.traits, len(data.classes), seed=0,
                              where="the benchmark").to(backbone.device)  # fmt: skip
        _start_head(Storage(where), backbone, data, fresh, brief, 0.0)

    def fit() -> None:
        shutil.rmtree(folder / "empty", ignore_errors=True)
        start(folder / "empty")

    start(folder / "kept")
    return {"head fitted": fit, "head loaded": lambda: start(folder / "kept")}
