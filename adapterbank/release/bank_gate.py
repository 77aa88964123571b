"""What a new version does to the tasks that are there: their images, routed by the next router.

Adapters are isolated, so that the one thing a newcomer can spoil is the router. Two routers are
built from the champions' records, one with the newcomer's in place, and both are asked for the
validation images of every other task.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from adapterbank.backbones.base import Backbone
from adapterbank.bank.bank import Bank
from adapterbank.bank.features import frozen_split
from adapterbank.config.gates import GateConfig
from adapterbank.data.store import stored_digest
from adapterbank.errors import InputError
from adapterbank.inference.router_versions import RouterPlan
from adapterbank.registry.verdicts import BankCheck, RoutedTask
from adapterbank.registry.versions import Version
from adapterbank.release.compare import compare_answers
from adapterbank.release.gates import Failure, is_worse
from adapterbank.routing.record import RoutingRecord
from adapterbank.routing.router import Router, common_blocks
from adapterbank.significance import holm


def check_bank(
    bank: Bank, backbone: Backbone, plan: RouterPlan, version: Version, champions: int
) -> tuple[BankCheck, tuple[RoutedTask, ...]]:
    """Route the other tasks' validation images as if ``version`` were its task's champion.

    Args:
        bank: an open bank.
        backbone: the bank's own.
        plan: what its routers are built by.
        version: the newcomer.
        champions: champions that were found sound before.

    Returns:
        the check, and each other task that could be asked.

    Raises:
        IntegrityError: a record or prepared data is damaged.
    """
    before = plan.champions(bank.registry)
    terms = bank_terms(bank, version.task, before.sources)
    own = plan.read(version)
    source = "" if own is None else own[1]
    if version.task == plan.aside or source == before.sources.get(version.task, ""):
        return BankCheck(champions=champions, same_router=True, terms=terms), ()
    after = {task: record for task, record in before.records.items() if task != version.task}
    others = tuple(after)
    unusable = len(before.left_out.keys() - {version.task})
    if own is not None:
        after[version.task] = own[0]
    routers = paired_routers(plan, before.records, after)
    if routers is None:
        left_out = len(others) + unusable
        return BankCheck(champions=champions, left_out=left_out, terms=terms), ()
    routed = []
    for task in others:
        try:
            val = frozen_split(bank, backbone, task, "val", routers[0].blocks)
        except InputError:  # not prepared here
            continue
        routed.append(route_task(task, val.features.numpy(), *routers))
    adjusted = adjust(routed)
    check = BankCheck(
        champions=champions,
        judged=len(routed),
        left_out=len(others) - len(routed) + unusable,
        worst=min(adjusted, key=lambda task: (task.recall.difference, task.recall.p), default=None),
        terms=terms,
    )
    return check, adjusted


def paired_routers(
    plan: RouterPlan, before: Mapping[str, RoutingRecord], after: Mapping[str, RoutingRecord]
) -> tuple[Router, Router] | None:
    """Build both of the same blocks, so that the newcomer is all they differ in.

    While a bank changes over to other blocks its records have some each.

    Returns:
        None where there is no router to spoil: no task yet, or nothing that scatters.
    """
    if not before or not after:
        return None
    records = {f"{task} now": record for task, record in before.items()}
    blocks = common_blocks(records | {f"{task} then": record for task, record in after.items()})
    try:
        return plan.build(before, blocks=blocks), plan.build(after, blocks=blocks)
    except InputError:
        return None


def route_task(
    task: str, features: NDArray[np.floating], before: Router, after: Router
) -> RoutedTask:
    """Ask two routers for images (n, L, D) of one task that both know.

    Only which task is the likeliest is compared. Whether an image is then rejected says nothing
    here: each router rejects a fixed share of these very images, which calibrate both.
    """
    routers = (before, after)
    right = [router.judge(features).chosen == router.tasks.index(task) for router in routers]
    return RoutedTask(
        task=task,
        total=len(features),
        recall=compare_answers(right[1], right[0]),
        right=(int(right[0].sum()), int(right[1].sum())),
    )


def adjust(routed: Sequence[RoutedTask]) -> tuple[RoutedTask, ...]:
    """Adjust the p-values of tasks for being several: a harmless newcomer reshuffles them all."""
    adjusted = holm([task.recall.p for task in routed])
    return tuple(replace(task, adjusted=p) for task, p in zip(routed, adjusted, strict=True))


def routing_failures(
    gates: GateConfig, routed: Sequence[RoutedTask], *, allowed: float
) -> tuple[Failure, ...]:
    """Name every other task that would lose too much, with the numbers.

    A task loses recall by the rule for accuracy, :func:`~adapterbank.release.gates.is_worse`, as
    one of all tasks.

    Args:
        gates: the terms.
        routed: all other tasks.
        allowed: a fall of recall that is accepted.
    """
    failures = []
    for task in adjust(routed):
        if is_worse(task.recall, gates, allowed=allowed, p=task.adjusted):
            reason = (
                f"the router would recognise {task.right[1]} of {task.total} images of {task.task},"
                f" it recognises {task.right[0]} ({100 * task.recall.difference:+.1f} points,"
                f" p {task.adjusted:.2g} as one of {len(routed)})"
            )
            failures.append(Failure(gate="max_routing_drop", reason=reason))
    return tuple(failures)


def bank_terms(bank: Bank, task: str, sources: Mapping[str, str]) -> str:
    """Hash what the bank gate judges a version of ``task`` on, besides itself.

    That is how routers are built, and the other tasks' data and records, the latter by ``sources``.
    """
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
