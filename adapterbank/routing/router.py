"""Which task does an image belong to, and does it belong to any?

One frozen pass gives a feature; everything after it is a whitening, a distance to each class mean
and a sum. A task's score is how likely its classes are to give the image: all classes of all tasks
share one covariance, class means of a task scatter by another, and a mean of few images is trusted
as little as the two say (the predictive density of the two-covariance model: Ioffe, "Probabilistic
linear discriminant analysis", 2006). Whether it is of any task is told by plain distance: an
image is judged against a background (Ren et al., "A simple fix to Mahalanobis distance for
improving near-OOD detection", 2021), for what all images have in common says nothing.

A router is a function of its tasks' records alone, summed in the order of their names: any order
of adding them gives the same bits, and removing one equals never having added it. In ``isolated``
mode the covariances come from a fixed reference instead, so that no other task moves a score.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

from adapterbank.errors import BackboneMismatch, InputError
from adapterbank.records import Route
from adapterbank.routing.calibration import fit_temperature, p_values
from adapterbank.routing.metric import Spread, measure_spread
from adapterbank.routing.mixtures import Mixtures, TaskPart
from adapterbank.routing.statistics import Floats, TaskStatistics

__all__ = ["Judgement", "Router", "RouterSettings", "build", "unit_rows"]

_TIE = 1e-4  # of probability: two tasks so close are a tie, whatever ``margin`` says
_TEMPERATURE_IMAGES = 4096  # for all tasks together, so that the fit does not grow as T²


@dataclass(frozen=True, kw_only=True)
class RouterSettings:
    """What a router is built by.

    Args:
        mode: ``pooled``: covariances of all tasks; ``isolated``: of a fixed reference.
        alpha: the share of a task's own images that may be turned away.
        margin: least lead in probability over the second task that is no tie.
        cap: images a task counts for at most in a pooled covariance.
    """

    mode: Literal["pooled", "isolated"] = "pooled"
    alpha: float = 0.05
    margin: float = 0.2
    cap: int = 400

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing.

        Raises:
            InputError: names the setting.
        """
        if not 0 < self.alpha < 1 or not 0 <= self.margin <= 1 or self.cap < 2:
            raise InputError(
                f"a router takes alpha in (0, 1), margin in [0, 1] and cap from 2, got"
                f" {self.alpha}, {self.margin} and {self.cap}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """Images judged by a router of T tasks.

    Args:
        scores: (B, T) log-likelihood under each task, less a constant.
        known: (B,) how much nearer to the best task's class means than to the background: larger
            is more familiar.
        chosen: (B,) the best task; ties go to the first by name.
        p_values: (B,) see :func:`adapterbank.routing.calibration.p_values`.
        probabilities: (B, T).
    """

    scores: Floats
    known: Floats
    chosen: NDArray[np.int64]
    p_values: Floats
    probabilities: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Router:
    """A finished router; it never changes. One instance serves any number of threads.

    Args:
        settings: what it was built by.
        backbone: fingerprint of the backbone of all features.
        spread: the metrics.
        temperature: what scores are divided by before they become probabilities.
        parts: by task, in the order of names.
        sources: SHA-256 of each task's record, or whatever names it.
    """

    settings: RouterSettings
    backbone: str
    spread: Spread
    temperature: float
    parts: Mapping[str, TaskPart]
    sources: Mapping[str, str]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names, sorted."""
        return tuple(self.parts)

    @property
    def width(self) -> int:
        """D."""
        return len(self.spread.background.mean)

    @property
    def twins(self) -> tuple[tuple[str, str], ...]:
        """Neighbouring tasks whose records are the same bytes: no router can tell them apart."""
        named = sorted((source, task) for task, source in self.sources.items() if source)
        return tuple((a[1], b[1]) for a, b in pairwise(named) if a[0] == b[0])

    @cached_property
    def _mixtures(self) -> Mixtures:
        """Its classes, ready to be scored; made once."""
        return Mixtures.of(list(self.parts.values()), self.spread.between)

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
            features: (B, D) frozen features, of any length.
            backbone: fingerprint of what gave them, where the caller knows it.

        Raises:
            BackboneMismatch: another backbone's features.
            InputError: a feature is zero, NaN or infinite.
        """
        if backbone not in {None, self.backbone} or features.shape[1:] != (self.width,):
            raise BackboneMismatch(
                f"the router is of backbone {self.backbone[:12]} with {self.width} numbers a"
                f" feature; got {(backbone or 'features')[:12]} of shape {features.shape}",
                fix="adapterbank router rebuild",
            )
        rows = unit_rows(features)
        white = self.spread.within.whiten(rows)
        parts = list(self.parts.values())
        scores = self._mixtures.score(white)
        chosen = scores.argmax(axis=1)
        known = background(self.spread, rows)
        for task in np.unique(chosen):
            mine = chosen == task
            known[mine] += 2 * nearness(white[mine], parts[task].prototypes)
        held = [part.calibration for part in parts]
        return Judgement(
            scores=scores,
            known=known,
            chosen=chosen,
            p_values=p_values(held, chosen, known),
            probabilities=softmax(scores / self.temperature, axis=1),
        )

    def route(
        self, features: NDArray[np.floating], *, top_k: int = 3, backbone: str | None = None
    ) -> list[Route]:
        """Name the task of each image, several where they are close, or none.

        Args:
            features: (B, D) frozen features, of any length.
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
        found = self.judge(features, backbone=backbone)
        return [self._decide(found, row, top_k) for row in range(len(found.chosen))]

    def _decide(self, found: Judgement, row: int, top_k: int) -> Route:
        shares, tasks = found.probabilities[row], self.tasks
        # Stable, and by score: far from all others two probabilities may round to the same.
        order = np.argsort(-found.scores[row], kind="stable")
        margin = float(shares[order[0]] - shares[order[1]]) if len(order) > 1 else 1.0
        p_value = float(found.p_values[row])
        outcome: Literal["task", "ambiguous", "abstain"] = "task"
        if p_value <= self.settings.alpha:
            outcome = "abstain"
        elif margin < max(self.settings.margin, _TIE):
            outcome = "ambiguous"
        return Route(
            outcome=outcome,
            task=None if outcome == "abstain" else tasks[order[0]],
            score=float(found.known[row]),
            p_value=p_value,
            margin=margin,
            candidates=tuple((tasks[i], float(shares[i])) for i in order[:top_k]),
        )


def build(
    records: Mapping[str, TaskStatistics],
    *,
    backbone: str,
    settings: RouterSettings | None = None,
    reference: TaskStatistics | None = None,
    sources: Mapping[str, str] | None = None,
) -> Router:
    """Build a router from the records of its tasks.

    Args:
        records: by task.
        backbone: fingerprint of the backbone that gave their features.
        settings: the defaults if None.
        reference: gives the covariances in ``isolated`` mode; never of one of the tasks, and the
            same for as long as scores shall be comparable.
        sources: what names each record, such as its SHA-256.

    Raises:
        BackboneMismatch: records of features of different widths.
        InputError: no task, or nothing that scatters, or a reference too many or too few.
    """
    chosen = settings or RouterSettings()
    if not records:
        raise InputError("a router needs at least one task", fix="adapterbank list")
    if (chosen.mode == "isolated") != (reference is not None):
        raise InputError(f"mode {chosen.mode}: isolated takes a reference, pooled takes none")
    tasks = {task: records[task] for task in sorted(records)}
    judged = tasks if reference is None else {**tasks, "the reference": reference}
    widths = {name: record.width for name, record in judged.items()}
    if len(set(widths.values())) > 1:
        raise BackboneMismatch(f"records of different backbones: widths {widths}")
    spread = measure_spread(tasks.values() if reference is None else (reference,), chosen.cap)
    parts = {task: _part(record, spread) for task, record in tasks.items()}
    return Router(
        settings=chosen,
        backbone=backbone,
        spread=spread,
        temperature=_temperature(tasks, list(parts.values()), spread),
        parts=parts,
        sources={task: (sources or {}).get(task, "") for task in tasks},
    )


def unit_rows(features: NDArray[np.floating]) -> Floats:
    """Scale (B, D) features to length one, in float64.

    Raises:
        InputError: a row is zero, NaN or infinite.
    """
    rows = np.asarray(features, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        bad = np.flatnonzero(~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0))
        raise InputError(f"features of images {bad[:5].tolist()} are zero or not finite")
    scaled: Floats = rows / lengths
    return scaled


def nearness(white: Floats, prototypes: Floats) -> Floats:
    """(B,) log of the mean of exp(−½ squared distance) of whitened rows to class means."""
    squared = (white**2).sum(axis=1)[:, None] + (prototypes**2).sum(axis=1)
    distances = np.maximum(squared - 2 * white @ prototypes.T, 0.0)
    found: Floats = logsumexp(-distances / 2, axis=1) - np.log(len(prototypes))
    return found


def background(spread: Spread, rows: Floats) -> Floats:
    """(B,) squared distance of rows to the background."""
    squared: Floats = (spread.background.whiten(rows) ** 2).sum(axis=1)
    return squared


def _part(record: TaskStatistics, spread: Spread) -> TaskPart:
    prototypes = np.ascontiguousarray(spread.within.whiten(record.means))
    own = nearness(spread.within.whiten(record.calibration), prototypes)
    known = 2 * own + background(spread, record.calibration)
    return TaskPart(prototypes=prototypes, counts=record.counts, calibration=np.sort(known))


def _temperature(
    records: Mapping[str, TaskStatistics], parts: Sequence[TaskPart], spread: Spread
) -> float:
    each = max(1, _TEMPERATURE_IMAGES // len(records))
    held = [record.calibration[:each] for record in records.values()]
    white = spread.within.whiten(np.concatenate(held))
    scores = Mixtures.of(parts, spread.between).score(white)
    return fit_temperature(scores, np.repeat(np.arange(len(held)), [len(h) for h in held]))
