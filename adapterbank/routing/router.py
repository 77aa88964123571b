"""Which task does an image belong to, and does it belong to any?

One frozen pass gives a feature after each of a few blocks; everything after it is a whitening, a
distance to each class mean and a sum. Blocks are taken for independent: log-likelihoods add up, and
so do distances. Early features tell domains apart and late ones classes; the sum of two does both
better than either (``benchmarks/router.py``).

A task's score is how likely its classes are to give the image: all classes of all tasks share one
covariance, class means of a task scatter by another, and a mean of few images is trusted as little
as the two say (the predictive density of the two-covariance model: Ioffe, "Probabilistic linear
discriminant analysis", 2006). Whether it is of any task is decided by plain distance: an image is
judged against a background (Ren et al., "A simple fix to Mahalanobis distance for improving
near-OOD detection", 2021), for what all images have in common says nothing.

A router is a function of its tasks' records alone, summed in the order of their names: any order
of adding them gives the same bits, and removing one equals never having added it. An isolated one
takes the covariances from a fixed reference instead, so that no other task moves a score.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from adapterbank.config.router import RouterConfig
from adapterbank.errors import BackboneMismatch, InputError
from adapterbank.records import Route
from adapterbank.routing.metric import Spread, measure_spread
from adapterbank.routing.record import Floats, RoutingRecord
from adapterbank.routing.scores import (
    Mixtures,
    TaskPart,
    background,
    familiarity,
    fit_temperature,
    likelihoods,
    nearness,
    p_values,
    unit_rows,
    whiten,
)

_TIE = 1e-4  # of probability: two tasks so close are a tie, whatever ``margin`` says
_TEMPERATURE_IMAGES = 4096  # for all tasks together, so that the fit does not grow as T²


@dataclass(frozen=True, kw_only=True, eq=False)
class Yardstick:
    """What an isolated router measures by, for as long as scores shall be comparable."""

    record: RoutingRecord  # never of one of the router's tasks
    source: str  # what names it, such as its SHA-256
    task: str = ""  # the one it is of, to which no image is given


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """Images judged by a router of T tasks."""

    scores: Floats  # (B, T) log-likelihood under each task, less a constant
    known: Floats  # (B,) how much nearer to the best task's class means than to the background
    chosen: NDArray[np.int64]  # (B,) the best task; ties go to the first by name
    p_values: Floats  # (B,) see :func:`adapterbank.routing.scores.p_values`
    probabilities: Floats  # (B, T)


@dataclass(frozen=True, kw_only=True, eq=False)
class Router:
    """A finished router; it never changes. One instance serves any number of threads."""

    alpha: float  # share of a task's own images that are rejected as unknown
    margin: float  # least lead in probability over the second task that is no tie
    cap: int  # images a task counts for at most in a pooled covariance
    backbone: str  # fingerprint of the backbone of all features
    blocks: tuple[int, ...]  # after which features are taken, counted from 1, ascending
    spreads: tuple[Spread, ...]  # the metrics after each of them
    temperature: float  # what scores are divided by before they become probabilities
    parts: Mapping[str, TaskPart]  # by task, in the order of names
    sources: Mapping[str, str]  # SHA-256 of each task's record, or whatever names it
    reference: str = ""  # what names the record that gave an isolated one its metrics
    aside: str = ""  # the task of that record, to which no image is given

    @property
    def mode(self) -> Literal["pooled", "isolated"]:
        """Whether covariances are of all tasks or of a reference."""
        return "isolated" if self.reference else "pooled"

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names, sorted."""
        return tuple(self.parts)

    @property
    def width(self) -> int:
        """D."""
        return len(self.spreads[0].background.mean)

    @property
    def twins(self) -> tuple[tuple[str, str], ...]:
        """Neighbouring tasks whose records are the same bytes: no router can tell them apart."""
        named = sorted((source, task) for task, source in self.sources.items() if source)
        return tuple((a[1], b[1]) for a, b in pairwise(named) if a[0] == b[0])

    @cached_property
    def _mixtures(self) -> tuple[Mixtures, ...]:
        """Its classes after each block, ready to be scored; made once."""
        return _mixtures(list(self.parts.values()), self.spreads)

    def among(self, tasks: Collection[str]) -> Router:
        """The same router with some of its tasks only; what it measures by stays.

        Raises:
            InputError: it has none of them.
        """
        kept = {task: part for task, part in self.parts.items() if task in tasks}
        if not kept:
            raise InputError(
                "none of the router's tasks is served any more", fix="adapterbank router rebuild"
            )
        sources = {task: self.sources[task] for task in kept}
        return self if len(kept) == len(self.parts) else replace(self, parts=kept, sources=sources)

    def judge(self, features: NDArray[np.floating], *, backbone: str | None = None) -> Judgement:
        """Score images under every task.

        Args:
            features: (B, L, D) frozen features after each of ``blocks``, of any length.
            backbone: fingerprint of what gave them, where the caller knows it.

        Raises:
            BackboneMismatch: another backbone's features.
            InputError: a feature is zero, NaN or infinite.
        """
        expected = (len(self.blocks), self.width)
        if backbone not in {None, self.backbone} or features.shape[1:] != expected:
            raise BackboneMismatch(
                f"the router is of backbone {self.backbone[:12]} with {self.width} numbers a"
                f" feature after blocks {listed(self.blocks)}; got"
                f" {(backbone or 'features')[:12]} of shape {features.shape}",
                fix="adapterbank router rebuild",
            )
        rows = unit_rows(features)
        white = whiten(self.spreads, rows)
        parts = list(self.parts.values())
        scores = likelihoods(self._mixtures, white)
        chosen = scores.argmax(axis=1)
        known = background(self.spreads, rows)  # of all rows in one product
        for task in np.unique(chosen):
            mine = chosen == task
            known[mine] += 2 * nearness(white[mine], parts[task].prototypes)
        calibration = [part.calibration for part in parts]
        return Judgement(
            scores=scores,
            known=known,
            chosen=chosen,
            p_values=p_values(calibration, chosen, known),
            probabilities=softmax(scores / self.temperature, axis=1),
        )

    def familiarity(self, rows: Floats, task: str) -> Floats:
        """How much nearer (B, L, D) rows of length one are to a task than to the background."""
        return familiarity(self.spreads, rows, self.parts[task].prototypes)

    def route(
        self, features: NDArray[np.floating], *, top_k: int = 3, backbone: str | None = None
    ) -> list[Route]:
        """Name the task of each image, several where they are close, or none.

        Args:
            features: (B, L, D) frozen features after each of ``blocks``, of any length.
            top_k: how many tasks to name with their probabilities.
            backbone: fingerprint of what gave the features, where the caller knows it.

        Returns:
            One route for each row, in order.

        Raises:
            BackboneMismatch: another backbone's features.
            InputError: a feature is zero, NaN or infinite, or ``top_k`` is below 1.
        """
        if top_k < 1:
            raise InputError(f"top_k starts at 1, got {top_k}")
        judgement = self.judge(features, backbone=backbone)
        return [self._decide(judgement, row, top_k) for row in range(len(judgement.chosen))]

    def _decide(self, judgement: Judgement, row: int, top_k: int) -> Route:
        shares, tasks = judgement.probabilities[row], self.tasks
        # Stable, and by score: far from all others two probabilities may round to the same.
        order = np.argsort(-judgement.scores[row], kind="stable")
        margin = float(shares[order[0]] - shares[order[1]]) if len(order) > 1 else 1.0
        p_value = float(judgement.p_values[row])
        outcome: Literal["task", "ambiguous", "abstain"] = "task"
        if p_value <= self.alpha:
            outcome = "abstain"
        elif margin < max(self.margin, _TIE):
            outcome = "ambiguous"
        return Route(
            outcome=outcome,
            task=None if outcome == "abstain" else tasks[order[0]],
            score=float(judgement.known[row]),
            p_value=p_value,
            margin=margin,
            candidates=tuple((tasks[i], float(shares[i])) for i in order[:top_k]),
        )


def build(
    records: Mapping[str, RoutingRecord],
    *,
    backbone: str,
    config: RouterConfig | None = None,
    yardstick: Yardstick | None = None,
    sources: Mapping[str, str] | None = None,
    blocks: Sequence[int] | None = None,
) -> Router:
    """Build a router from the records of its tasks.

    It is of the blocks that all records have, the yardstick's among them, unless ``blocks`` says
    of which of them.

    Args:
        records: by task.
        backbone: fingerprint of the backbone that gave their features.
        config: ``alpha``, ``margin`` and ``cap`` of it count; the defaults if None.
        yardstick: gives the covariances; the router is isolated. None: pooled.
        sources: what names each record, such as its SHA-256.
        blocks: which to use; None: all that can be.

    Raises:
        BackboneMismatch: records of features of different widths, or of no block in common.
        InputError: no task, or nothing that scatters.
    """
    config = config or RouterConfig()
    if not records:
        raise InputError("a router needs at least one task", fix="adapterbank list")
    tasks = {task: records[task] for task in sorted(records)}
    judged = tasks if yardstick is None else {**tasks, "the reference": yardstick.record}
    used = common_blocks(judged)
    if blocks is not None:
        used = tuple(block for block in used if block in blocks)
    measured = tuple(tasks.values()) if yardstick is None else (yardstick.record,)
    cap = config.cap if yardstick is None else math.inf  # alone, it decides alone
    spreads = tuple(
        measure_spread((record.layers[block] for record in measured), cap) for block in used
    )
    each = max(1, _TEMPERATURE_IMAGES // len(tasks))
    parts, some = {}, []
    for task, record in tasks.items():
        held_out = record.calibration(used)
        means = np.stack([record.layers[block].means for block in used], axis=1)
        prototypes = np.ascontiguousarray(whiten(spreads, means).swapaxes(0, 1))
        parts[task] = TaskPart(
            prototypes=prototypes,
            counts=record.counts,
            calibration=np.sort(familiarity(spreads, held_out, prototypes)),
        )
        some.append(held_out[:each].copy())  # a view would keep all of them
    white = whiten(spreads, np.concatenate(some))
    scores = likelihoods(_mixtures(list(parts.values()), spreads), white)
    own = np.repeat(np.arange(len(tasks)), [len(rows) for rows in some])
    return Router(
        alpha=config.alpha,
        margin=config.margin,
        cap=config.cap,
        backbone=backbone,
        blocks=used,
        spreads=spreads,
        temperature=fit_temperature(scores, own),
        parts=parts,
        sources={task: (sources or {}).get(task, "") for task in tasks},
        reference="" if yardstick is None else yardstick.source,
        aside="" if yardstick is None else yardstick.task,
    )


def common_blocks(records: Mapping[str, RoutingRecord]) -> tuple[int, ...]:
    """The blocks that all records have, ascending.

    Raises:
        BackboneMismatch: there is none, or widths differ.
    """
    widths = {name: record.last.width for name, record in records.items()}
    if len(set(widths.values())) > 1:
        raise BackboneMismatch(f"records of different backbones: widths {widths}")
    common = set.intersection(*(set(record.blocks) for record in records.values()))
    if not common:
        blocks = {name: record.blocks for name, record in records.items()}
        raise BackboneMismatch(f"records of features of no block in common: {blocks}")
    return tuple(sorted(common))


def _mixtures(parts: Sequence[TaskPart], spreads: Sequence[Spread]) -> tuple[Mixtures, ...]:
    return tuple(Mixtures.of(parts, layer, spread.between) for layer, spread in enumerate(spreads))


def listed(blocks: Sequence[int]) -> str:
    """Name blocks in a sentence."""
    return " and ".join(map(str, blocks))
