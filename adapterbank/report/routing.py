"""How the served router does on the test images that are prepared here.

Nothing is chosen by these figures. An unknown task is made by leaving one out: a router of all
other records is built, and it should reject the images of the one that was left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapterbank.config.router import RouterConfig
from adapterbank.routing.record import RoutingRecord
from adapterbank.routing.router import Judgement, Router, build

ALPHAS: tuple[float, ...] = tuple(round(step / 100, 2) for step in range(26))
"""Where abstention curves are drawn: the router's alpha from 0 to 0.25."""
MOST_UNKNOWN = 12
"""Tasks that are left out in turn; a router is built for each."""

Features = Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """The test images of one task: to which task each was sent."""

    task: str  # the true one
    chosen: tuple[int, ...]  # images by chosen task, in the order of the router's tasks
    abstained: int  # images that were rejected
    ambiguous: int  # of those that were not, how many had a second task nearly as likely

    @property
    def total(self) -> int:
        """Test images."""
        return sum(self.chosen) + self.abstained


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """What a router that never saw a task says of its images."""

    task: str  # the one that was left out
    abstained: int  # images rejected, as they should be
    total: int
    auroc: float  # chance that an image of the other tasks looks more familiar than one of these


@dataclass(frozen=True, kw_only=True)
class RoutingFigures:
    """All that the page says of a router.

    A curve is the share of images that are rejected at each of ``ALPHAS``, as a mean over tasks.
    """

    tasks: tuple[str, ...]  # that it knows, in its order
    alpha: float  # the share of a task's own images it may reject
    confusion: tuple[Confusion, ...]  # a row for each task with test images here
    known_curve: tuple[float, ...]
    unknown: tuple[Unknown, ...]  # the tasks that were left out in turn
    unknown_curve: tuple[float, ...] | None  # None where no task could be left out


def routing_figures(
    router: Router, records: Mapping[str, RoutingRecord], features: Features
) -> RoutingFigures:
    """Judge test images by a router, and by routers that lack one of its tasks.

    Args:
        router: what is served.
        records: of the champions, by task; those that are missing cannot be left out.
        features: (n, L, D) frozen features of test images, by task of the router; at least one.

    Raises:
        BackboneMismatch: features of another width.
    """
    judged = {task: router.judge(features[task]) for task in router.tasks if task in features}
    confusion = tuple(_confusion(router, task, features[task]) for task in judged)
    left_out = [task for task in judged if task in records][:MOST_UNKNOWN]
    unknown, curves = [], []
    for task in left_out:
        lesser = _without(router, records, task)
        if lesser is None:
            break
        judgement = lesser.judge(features[task])
        others = [lesser.judge(features[name]).known for name in judged if name != task]
        known = np.concatenate(others) if others else np.empty(0)
        unknown.append(
            Unknown(
                task=task,
                abstained=int((judgement.p_values <= router.alpha).sum()),
                total=len(judgement.p_values),
                auroc=_auroc(known, judgement.known),
            )
        )
        curves.append(_curve(judgement))
    return RoutingFigures(
        tasks=router.tasks,
        alpha=router.alpha,
        confusion=confusion,
        known_curve=_mean([_curve(judgement) for judgement in judged.values()]),
        unknown=tuple(unknown),
        unknown_curve=_mean(curves) if curves else None,
    )


def _without(router: Router, records: Mapping[str, RoutingRecord], task: str) -> Router | None:
    """The router as it would be if a task had never been added; None of its only task."""
    others = [name for name in router.tasks if name != task]
    if not others:
        return None
    if router.mode == "isolated":  # no task moves another's scores
        return router.among(others)
    kept = {name: records[name] for name in others if name in records}
    if len(kept) < len(others):
        return None
    config = RouterConfig(alpha=router.alpha, margin=router.margin, cap=router.cap)
    return build(kept, backbone=router.backbone, config=config, blocks=router.blocks)


def _confusion(router: Router, task: str, features: NDArray[np.floating]) -> Confusion:
    """Count what the router decides; ambiguous images go with their first task."""
    routes = router.route(features)
    chosen = Counter(route.task for route in routes)
    return Confusion(
        task=task,
        chosen=tuple(chosen[name] for name in router.tasks),
        abstained=chosen[None],
        ambiguous=sum(route.outcome == "ambiguous" for route in routes),
    )


def _curve(judgement: Judgement) -> tuple[float, ...]:
    return tuple(float((judgement.p_values <= alpha).mean()) for alpha in ALPHAS)


def _mean(curves: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.mean(curves, axis=0))


def _auroc(known: NDArray[np.float64], unknown: NDArray[np.float64]) -> float:
    """Chance that a known image scores higher than an unknown one; ties count half."""
    if not len(known) or not len(unknown):
        return float("nan")
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415  # a second that only reports need

    truth = np.repeat([1, 0], [len(known), len(unknown)])
    return float(roc_auc_score(truth, np.concatenate([known, unknown])))
