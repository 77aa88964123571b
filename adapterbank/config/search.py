"""What a search may try and what it may spend: part of `pipelines/params.yaml`.

Nothing here knows a method: which names a space may have is checked where a search begins.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from adapterbank.config.strict import Strict

Choice = bool | int | float | str | None
"""One value of a hyper-parameter."""


class Range(Strict):
    """All numbers from ``low`` to ``high``, both included."""

    low: float
    high: float
    log: bool = False  # equally many in each decade
    integer: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, not at {self.low:g}")
        if self.integer and (self.low != math.floor(self.low) or self.high != math.ceil(self.high)):
            raise ValueError("an integer range has whole ends")
        return self


Choices = Annotated[tuple[Choice, ...], Field(min_length=1)]


def _kind(domain: object) -> str | None:
    """Tell a list from a range, so that what is wrong is said of the one that was meant."""
    if isinstance(domain, tuple):
        return "list"
    return "range" if isinstance(domain, dict | Range) else None


Domain = Annotated[
    Annotated[Choices, Tag("list")] | Annotated[Range, Tag("range")],
    Discriminator(
        _kind,
        custom_error_type="domain",
        custom_error_message="expected a list of values, or {low:, high:}",
    ),
]
"""The values that may be tried for one hyper-parameter: a list, or a range of numbers."""

Space = dict[str, Domain]
"""Domains by name: a method's own hyper-parameters, ``learning_rate``, ``weight_decay``."""


class SearchConfig(Strict):
    """How a search looks for hyper-parameters, and what it may spend.

    Ceilings are on what a trial would cost when it is served, known before it starts: a
    configuration over one is never tried.
    """

    sampler: Literal["random", "optuna", "grid", "paper"] = "random"
    scheduler: Literal["asha", "none"] = "asha"
    trials: int | None = Field(default=16, ge=1, le=100_000)  # None: all of a grid
    epochs: int | None = Field(default=None, ge=1, le=100_000)  # None: as many as training takes
    minutes: float | None = Field(default=None, gt=0.0)  # of wall time, each task; None: no limit
    grace: int = Field(default=1, ge=1)  # epochs before asha may stop a trial
    reduction: int = Field(default=3, ge=2)  # asha keeps one in so many
    max_parameters: int | None = Field(default=None, ge=1)  # of the method, without the head
    max_latency: float | None = Field(default=None, gt=0.0)  # times a bare backbone's forward
    cpus_per_trial: float | None = Field(default=None, gt=0.0)  # None: one for each of its threads
    gpus_per_trial: float | None = Field(default=None, ge=0.0)  # None: one where there are any
    max_concurrent: int | None = Field(default=None, ge=1)  # None: as many as there is room for
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _can_end(self) -> Self:
        if self.trials is None and self.sampler not in {"grid", "paper"}:
            raise ValueError(f"trials: {self.sampler} never ends by itself, it needs a number")
        return self
