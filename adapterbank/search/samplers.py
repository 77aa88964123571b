"""Which configuration to try next. Pure: the answer follows from the seed and the trials so far.

So an interrupted search needs no sampler state on the disk: from the trials that are there follows
the proposal that would have been the next one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

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


Sampler = Callable[[Sequence[Trial], Allowed], Values | None]
"""Proposes the next trial's configuration, one that is allowed, by all trials that were started,
in the order of their numbers; None where there is nothing new to propose."""


def make_sampler(config: SearchConfig, space: Space) -> Sampler:
    """Build the sampler a configuration names."""
    if config.sampler in {"grid", "paper"}:
        return partial(_next_point, points(space))
    if config.sampler == "optuna":
        return partial(_first_new, partial(_estimates, space, config))
    return partial(_first_new, partial(_draws, space, config))


def _next_point(grid: Sequence[Values], trials: Sequence[Trial], allowed: Allowed) -> Values | None:
    """Every point of the space, in order."""
    return next(itertools.islice(filter(allowed, grid), len(trials), None), None)


def _first_new(
    draws: Callable[[Sequence[Trial]], Iterator[Values]], trials: Sequence[Trial], allowed: Allowed
) -> Values | None:
    """The first of several draws that is allowed and no repetition."""
    tried = [trial.values for trial in trials]
    attempts = itertools.islice(draws(trials), _ATTEMPTS)
    return next((values for values in attempts if values not in tried and allowed(values)), None)


def _draws(space: Space, config: SearchConfig, trials: Sequence[Trial]) -> Iterator[Values]:
    """Independent draws."""
    generator = np.random.default_rng([config.seed, len(trials)])
    while True:
        yield draw(space, generator)


def _estimates(space: Space, config: SearchConfig, trials: Sequence[Trial]) -> Iterator[Values]:
    """Ask Optuna's tree-structured Parzen estimator (Bergstra et al. 2011).

    Each time a new study, which is told of all trials, so no state is kept.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    states = optuna.trial.TrialState
    distributions = {name: _distribution(domain) for name, domain in space.items()}
    for attempt in itertools.count():
        entropy = [config.seed, len(trials), attempt]
        sampler = optuna.samplers.TPESampler(
            seed=int(np.random.SeedSequence(entropy).generate_state(1)[0]),
            n_startup_trials=max(4, (config.trials or 0) // 4),  # random ones
            constant_liar=True,
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for trial in trials:
            study.add_trial(
                optuna.trial.create_trial(
                    state=states.RUNNING if trial.score is None else states.COMPLETE,
                    value=trial.score,
                    params=trial.values,
                    distributions=distributions,
                )
            )
        yield dict(study.ask(distributions).params)


def _distribution(domain: Domain) -> BaseDistribution:
    if not isinstance(domain, Range):
        return CategoricalDistribution(domain)
    if domain.integer:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)
