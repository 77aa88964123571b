"""Named recipes: everything about optimisation that is not a method's hyper-parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import nn

from adapterbank import catalog
from adapterbank.config.bank import TrainConfig
from adapterbank.errors import UnknownName


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an adapter is optimised.

    ``multipliers`` scale the learning rate of parameters by name; parameters that a method does
    not have are passed over, so one recipe serves every method.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-2
    per_batch_of: int | None = None  # linear scaling rule: rate × batch / this
    weight_decay: float = 0.0
    multipliers: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    warm_up: float = 0.1  # fraction of the epochs
    schedule: Literal["step", "epoch"] = "step"
    head: Literal["as_built", "ridge"] = "ridge"
    gradient: bool = True  # False: closed form only

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values, for an adapter's configuration."""
        return {**vars(self), "multipliers": dict(self.multipliers)}

    def rate(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Fraction of the learning rate at a step: linear warm-up, then a cosine to zero.

        ``schedule="epoch"`` changes it once an epoch and starts at exactly zero, as the published
        recipe's trainer does.
        """
        if steps_per_epoch * epochs == 1:
            return 1.0  # the cosine of a single step would be its end
        if self.schedule == "epoch":
            now, warm = float(step // steps_per_epoch), self.warm_up * epochs
            total = float(epochs)
        else:
            now, warm = step + 1.0, self.warm_up * epochs * steps_per_epoch
            total = float(epochs * steps_per_epoch)
        if now < warm:
            return now / warm
        return 0.5 * (1.0 + math.cos(math.pi * (now - warm) / max(total - warm, 1.0)))


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        # Works at small budgets: see docs/figures.md. Rates are relative to how large a
        # parameter starts: base prompts start at the scale of tokens, other prompts far below.
        "default": Recipe(
            learning_rate=1e-2,
            multipliers=MappingProxyType(
                {"alpha": 0.3, "base": 16.0, "prompts": 0.5, "head.weight": 0.2, "head.bias": 0.2}
            ),
        ),
        # arXiv 2501.18936: SGD, momentum 0.9, base rate × batch / 256, 10 of 100 epochs warm-up.
        # The published searches run over ten rates and four decays; these are one setting of it.
        "paper": Recipe(
            optimizer="sgd",
            learning_rate=2.5,
            per_batch_of=256,
            weight_decay=1e-2,
            schedule="epoch",
            head="as_built",
        ),
        "closed_form": Recipe(gradient=False),
    }
)


def find_recipe(settings: TrainConfig, method: str) -> Recipe:
    """Find a recipe by name, with the settings' own rate and decay on top.

    A method may name the recipe that ``default`` means for it (``DEFAULT_RECIPE``).

    Raises:
        UnknownName: no such recipe or method.
    """
    name = settings.recipe
    if name == "default":
        module = catalog.load("adapterbank.methods", method, kind="method")
        name = getattr(module, "DEFAULT_RECIPE", name)
    if name not in RECIPES:
        raise UnknownName("recipe", name, RECIPES)
    recipe = RECIPES[name]
    if settings.learning_rate is not None:
        recipe = replace(recipe, learning_rate=settings.learning_rate)
    if settings.weight_decay is not None:
        recipe = replace(recipe, weight_decay=settings.weight_decay)
    return recipe


def build_optimizer(recipe: Recipe, adapter: nn.Module, batch_size: int) -> torch.optim.Optimizer:
    """Build the optimiser with one group for each parameter; ``initial_lr`` is its full rate."""
    base = recipe.learning_rate
    if recipe.per_batch_of is not None:
        base *= batch_size / recipe.per_batch_of
    groups = []
    for name, parameter in adapter.named_parameters():
        rate = base * recipe.multipliers.get(name, 1.0)
        groups.append({"params": [parameter], "lr": rate, "initial_lr": rate})
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=base, momentum=0.9, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(groups, lr=base, weight_decay=recipe.weight_decay)
