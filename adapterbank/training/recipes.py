"""Named recipes: everything about optimisation that is not a method's hyper-parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adapterbank import catalog
from adapterbank.config.bank import TrainConfig
from adapterbank.errors import UnknownName


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an adapter is optimised.

    ``multipliers`` scale the learning rate of parameters by name; parameters that a method does
    not have are passed over, so one recipe serves every method.

    With ``scales`` the learning rate is a fraction of each tensor's own scale, which is its root
    mean square at its start, or what ``scales`` says of a tensor that starts at zero: AdamW moves
    every number by about the rate, so an absolute one destroys small tensors and leaves large ones
    where they are.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-2
    per_batch_of: int | None = None  # linear scaling rule: rate × batch / this
    full_rate_steps: int | None = None  # fewer get less, by the cube of their proportion
    full_rate_epochs: int | None = None  # more get less in proportion
    weight_decay: float = 0.0
    multipliers: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    scales: Mapping[str, float] | None = None  # None: rates are absolute
    warm_up: float = 0.1  # fraction of the epochs
    schedule: Literal["step", "epoch"] = "step"
    head: Literal["as_built", "ridge"] = "ridge"
    gradient: bool = True  # False: closed form only

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values, for an adapter's configuration."""
        scales = None if self.scales is None else dict(self.scales)
        return {**vars(self), "multipliers": dict(self.multipliers), "scales": scales}

    def share(self, steps: int) -> float:
        """Fraction of what there is to learn that this many steps are trusted with.

        Few steps cannot mend what large ones break, and ``full_rate_steps`` of them can.
        """
        return min(1.0, (steps / (self.full_rate_steps or steps)) ** 3)

    def rate(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Fraction of the learning rate at a step: linear warm-up, then a cosine to zero.

        The whole is smaller where steps are few (:meth:`share`), and where images are seen many
        times, which are learned by heart (``full_rate_epochs``).

        ``schedule="epoch"`` changes it once an epoch and starts at exactly zero, as the published
        recipe's trainer does.
        """
        steps = epochs * steps_per_epoch
        full = self.share(steps)
        if self.full_rate_epochs is not None:
            full = min(full, self.full_rate_epochs / epochs)
        if steps == 1:
            return full  # the cosine of a single step would be its end
        if self.schedule == "epoch":
            now, warm = float(step // steps_per_epoch), self.warm_up * epochs
            total = float(epochs)
        else:
            total = float(steps)
            now, warm = step + 1.0, self.warm_up * total
        if now < warm:
            return full * now / warm
        return full * 0.5 * (1.0 + math.cos(math.pi * (now - warm) / max(total - warm, 1.0)))


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        # Prompts and the projector, by which it learns, move by about their own scale in 100 steps.
        # What pools and normalises image tokens starts where it should be: docs/figures.md.
        "default": Recipe(
            learning_rate=4e-2,
            full_rate_steps=100,
            full_rate_epochs=10,
            multipliers=MappingProxyType(
                {
                    "first": 5.5,
                    "base": 6.0,
                    "prompts": 2.5,
                    "down": 8.0,
                    "up": 5.0,
                    "norm_weight": 0.25,
                    "norm_bias": 0.25,
                    "bias": 0.25,
                    "alpha": 1.5,
                    "head.weight": 1.5,
                    "head.bias": 0.25,
                }
            ),
            # Normalised tokens have scale one; a weighting of P patches has about 1 / P.
            scales=MappingProxyType({"alpha": 0.05, "up": 0.05}),
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
    """Build the optimiser with one group for each parameter; ``initial_lr`` is its full rate.

    The adapter must be at its start, of which relative rates are.
    """
    base = recipe.learning_rate
    if recipe.per_batch_of is not None:
        base *= batch_size / recipe.per_batch_of
    groups = []
    for name, parameter in adapter.named_parameters():
        rate = base * recipe.multipliers.get(name, 1.0)
        if recipe.scales is not None:
            rate *= _scale(parameter) or recipe.scales.get(name, 1.0)
        groups.append({"params": [parameter], "lr": rate, "initial_lr": rate})
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=base, momentum=0.9, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(groups, lr=base, weight_decay=recipe.weight_decay)


def _scale(parameter: Tensor) -> float:
    """Root mean square of a tensor."""
    return float(parameter.detach().double().square().mean().sqrt())
