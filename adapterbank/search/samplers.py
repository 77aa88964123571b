"""Which configuration to try next. Pure: the answer follows from the seed and the trials so far.

So an interrupted search needs no sampler state on the disk: from the trials that are there follows
the proposal that would have been the next one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from adapterbank.config.search import Domain, Range, SearchConfig, Space
from adapterbank.search.ledger import Trial
from adapterbank.search.space import Values, draw, points

Allowed = Callable[[Values], bool]
"""Whether a configuration is under the ceilings."""

_ATTEMPTS = 200  # at a configuration that is new and allowed


class Sampler(Protocol):
    """Proposes configurations."""

    def propose(self, trials: Sequence[Trial], allowed: Allowed) -> Values | None:
        """Propose the configuration of the next trial.

        Args:
            trials: all that were started, in the order of their numbers.
            allowed: what may be proposed.

        Returns:
            None where there is nothing new to propose.
        """


def make_sampler(config: SearchConfig, space: Space) -> Sampler:
    """Build the sampler a configuration names.

    Raises:
        ConfigError: a grid over a range.
    """
    if config.sampler in {"grid", "paper"}:
        return _Grid(space)
    if config.sampler == "optuna":
        return _Optuna(space, config.seed, config.trials or 0)
    return _Random(space, config.seed)


class _Grid:
    """Every point of the space, in order."""

    def __init__(self, space: Space) -> None:
        self._points = points(space)

    def propose(self, trials: Sequence[Trial], allowed: Allowed) -> Values | None:
        feasible = (point for point in self._points if allowed(point))
        return next(itertools.islice(feasible, len(trials), None), None)


class _Random:
    """Independent draws without repetition."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed

    def propose(self, trials: Sequence[Trial], allowed: Allowed) -> Values | None:
        generator = np.random.default_rng([self._seed, len(trials)])
        tried = [trial.values for trial in trials]
        for _ in range(_ATTEMPTS):
            values = draw(self._space, generator)
            if values not in tried and allowed(values):
                return values
        return None


class _Optuna:
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011)."""

    def __init__(self, space: Space, seed: int, trials: int) -> None:
        self._distributions = {name: _distribution(domain) for name, domain in space.items()}
        self._seed = seed
        self._startup = max(4, trials // 4)  # random ones first

    def propose(self, trials: Sequence[Trial], allowed: Allowed) -> Values | None:
        tried = [trial.values for trial in trials]
        for attempt in range(_ATTEMPTS):
            entropy = [self._seed, len(trials), attempt]
            seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
            values = self._ask(seed, trials)
            if values not in tried and allowed(values):
                return values
        return None

    def _ask(self, seed: int, trials: Sequence[Trial]) -> Values:
        """Ask a study that has seen the trials; a new one each time, so no state is kept."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=self._startup, constant_liar=True
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        states = optuna.trial.TrialState
        for trial in trials:
            study.add_trial(
                optuna.trial.create_trial(
                    state=states.RUNNING if trial.score is None else states.COMPLETE,
                    value=trial.score,
                    params=trial.values,
                    distributions=self._distributions,
                )
            )
        return dict(study.ask(self._distributions).params)


def _distribution(domain: Domain) -> BaseDistribution:
    if not isinstance(domain, Range):
        return CategoricalDistribution(domain)
    if domain.integer:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)
