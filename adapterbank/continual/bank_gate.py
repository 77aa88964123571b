"""What a new version does to the tasks that are there: their images, routed by the next router.

Adapters are isolated, so that the one thing a newcomer can spoil is the router. Two routers are
built from the champions' records, one with the newcomer's in place, and both are asked for the
validation images of every other task.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from adapterbank.backbones.base import Backbone
from adapterbank.continual.bank import Bank
from adapterbank.continual.frozen import frozen_split
from adapterbank.continual.gates import Failure, as_comparison, is_worse
from adapterbank.continual.paired import compare
from adapterbank.continual.routers import RouterPlan, champion_records, read_routing
from adapterbank.continual.verdicts import BankCheck, RoutedTask
from adapterbank.data.store import stored_digest
from adapterbank.errors import InputError
from adapterbank.inference.predictor import Predictor
from adapterbank.policies import GateConfig
from adapterbank.registry.store import Version
from adapterbank.routing.router import Router

__all__ = ["bank_terms", "check_bank", "route_task", "routing_failures"]

ABSTENTION_SLACK = 0.02  # beyond the router's alpha, of a task's own images
_LEVEL = 0.05  # of the binomial tolerance on top


def check_bank(
    bank: Bank, predictor: Predictor, version: Version, champions: int
) -> tuple[BankCheck, tuple[RoutedTask, ...]]:
    """Route the other tasks' validation images as if ``version`` were its task's champion.

    Args:
        bank: an open bank.
        predictor: of its registry.
        version: the newcomer.
        champions: champions that were found sound before.

    Returns:
        the check, and each other task that could be asked.

    Raises:
        IntegrityError: a record or prepared data is damaged.
    """
    plan = RouterPlan.of(bank.registry, bank.config.router)
    found = champion_records(bank.registry, aside=plan.aside)
    terms = _terms(bank, version.task, found.sources)
    mine = read_routing(version)
    source = "" if mine is None else mine[1]
    if version.task == plan.aside or source == found.sources.get(version.task, ""):
        return BankCheck(champions=champions, same_router=True, terms=terms), ()
    after = {task: record for task, record in found.records.items() if task != version.task}
    others = tuple(after)
    if mine is not None:
        after[version.task] = mine[0]
    try:
        routers = [plan.build(one) for one in (found.records, after)]
    except InputError:  # no task yet, or nothing that scatters: there is no router to spoil
        return BankCheck(champions=champions, left_out=len(others), terms=terms), ()
    routed = []
    for task in others:
        try:
            features = _val_features(bank, predictor.backbone, task, routers)
        except InputError:  # not prepared here
            continue
        routed.append(route_task(task, features, *routers))
    check = BankCheck(
        champions=champions,
        judged=len(routed),
        left_out=len(others) - len(routed),
        worst=min(routed, key=lambda one: (one.recall.difference, one.recall.p), default=None),
        terms=terms,
    )
    return check, tuple(routed)


def _val_features(
    bank: Bank, backbone: Backbone, task: str, routers: Iterable[Router]
) -> list[NDArray[np.floating]]:
    """A task's validation images as each router takes them."""
    return [
        frozen_split(bank, backbone, task, "val", router.blocks).features.numpy()
        for router in routers
    ]


def route_task(
    task: str, features: Sequence[NDArray[np.floating]], before: Router, after: Router
) -> RoutedTask:
    """Ask two routers for images of one task that both know: (n, L, D) as each takes them."""
    pairs = list(zip((before, after), features, strict=True))
    judged = [router.judge(rows) for router, rows in pairs]
    own = [router.tasks.index(task) for router in (before, after)]
    right = [found.chosen == index for found, index in zip(judged, own, strict=True)]
    kept = [
        found.p_values > router.settings.alpha
        for found, router in zip(judged, (before, after), strict=True)
    ]
    return RoutedTask(
        task=task,
        total=len(features[0]),
        recall=as_comparison(compare(right[1], right[0])),
        right=(int(right[0].sum()), int(right[1].sum())),
        abstained=(int((~kept[0]).sum()), int((~kept[1]).sum())),
        p_abstained=as_comparison(compare(kept[1], kept[0])).p,
        alpha=after.settings.alpha,
    )


def routing_failures(
    gates: GateConfig, routed: Iterable[RoutedTask], *, allowed: float
) -> tuple[Failure, ...]:
    """Name every other task that would lose too much, with the numbers.

    A task loses recall by the rule for accuracy, :func:`~adapterbank.continual.gates.is_worse`.
    Its images are turned away too often where they are more than before, by the paired test, and
    more than the router's alpha and 2 points allow at a level of 5 % (one-sided, binomial): a task
    that was beyond that already holds nobody up.

    Args:
        gates: the terms.
        routed: each other task.
        allowed: a fall of recall that is accepted.
    """
    failures = []
    for one in routed:
        if is_worse(one.recall, gates, allowed=allowed):
            failures.append(Failure(gate="max_routing_drop", reason=_told(one)))
        now, limit = one.abstained[1], one.alpha + ABSTENTION_SLACK
        beyond = float(stats.binom.sf(now - 1, one.total, limit)) <= _LEVEL
        if beyond and one.p_abstained <= gates.alpha:
            reason = (
                f"the router would turn away {now} of {one.total} images of {one.task}, it turns"
                f" away {one.abstained[0]}; {100 * limit:.0f} % are allowed"
            )
            failures.append(Failure(gate="abstention", reason=reason))
    return tuple(failures)


def _told(one: RoutedTask) -> str:
    """What the router would lose of another task, in words."""
    return (
        f"the router would find {one.right[1]} of {one.total} images of {one.task}, it finds"
        f" {one.right[0]} ({100 * one.recall.difference:+.1f} points, p {one.recall.p:.2g})"
    )


def bank_terms(bank: Bank, task: str) -> str:
    """Hash what the bank gate judges a version of ``task`` on, besides itself.

    That is how routers are built, and the other tasks' records and data.
    """
    found = champion_records(bank.registry, aside=bank.config.router.aside)
    return _terms(bank, task, found.sources)


def _terms(bank: Bank, task: str, sources: Mapping[str, str]) -> str:
    terms = []
    for other, source in sorted(sources.items()):
        if other == task:
            continue
        try:
            data = stored_digest(bank.data(other))
        except InputError:
            data = ""
        terms.append((other, source, data))
    settings = bank.config.router.model_dump(mode="json", exclude={"blocks"})
    return hashlib.sha256(json.dumps([settings, terms]).encode()).hexdigest()
