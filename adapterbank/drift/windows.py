"""Windows of new images against what a task was trained on, and what to do about it.

Of each window three things are asked: whether its frozen features are those of the task's held-out
images (:func:`~adapterbank.drift.two_sample.kernel_test`), whether they are as familiar to the
router (:func:`~adapterbank.drift.two_sample.distribution_test`), and whether the version is
less sure of them (:func:`~adapterbank.drift.two_sample.fall_test`). A window has moved where
one of the three has a p-value, adjusted for being one of three, of at most α, and an effect that
is worth a word: with images enough any difference has a small p-value. α therefore bounds the
share of unchanged windows that are said to have moved, whatever their size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from adapterbank.drift.two_sample import (
    distribution_test,
    fall_test,
    kernel_test,
    principal,
    relabel,
)
from adapterbank.errors import InputError
from adapterbank.significance import as_written, holm

Action: TypeAlias = Literal["none", "recalibrate", "retrain", "new task", "other task"]

LEAST_HELD_OUT = 20  # held-out images; of fewer nothing can be told
LEAST_WINDOW = 20

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How windows are judged."""

    window: int = 200  # images in each
    alpha: float = 0.01  # the share of unchanged windows that may be said to have moved
    permutations: int = 999  # of each test
    dimensions: int = 128  # of the features that are compared
    seed: int = 0  # of the permutations
    least_shift: float = 0.05  # least effect of the kernel test that counts
    least_distance: float = 0.1  # the same of the Kolmogorov-Smirnov test
    least_fall: float = 0.03  # the same of the fall of confidence
    most: float = 0.5  # the share of images of no task from which on they are a new one
    # The share of images of one other task from which on they are its, and of images of any other
    # or none from which on they are a new one: more than ``most``, for a router sends many images
    # that are merely spoilt to other tasks.
    most_elsewhere: float = 0.75

    def __post_init__(self) -> None:
        """Refuse settings by which nothing can be judged.

        Raises:
            InputError: names the setting.
        """
        if self.window < LEAST_WINDOW:
            raise InputError(f"a window has at least {LEAST_WINDOW} images, got {self.window}")
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha lies between 0 and 1, got {self.alpha}")
        if 3 / (1 + self.permutations) > self.alpha:
            raise InputError(
                f"{self.permutations} permutations give no p-value of {self.alpha} for one of"
                f" three tests: at least {int(np.ceil(3 / self.alpha)) - 1}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """The held-out images of a task, with which new ones are compared."""

    features: Floats  # (K, D) whitened, of images that no fit has seen
    familiarity: Floats  # (K,) of the same images under the task
    # (V,) probabilities of the version's answers to images that it was not trained on, if any
    confidence: Floats | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """New images, in the order they came."""

    features: Floats  # (n, D) whitened
    familiarity: Floats  # (n,) under the task
    confidence: Floats  # (n,) probabilities of the version's answers
    tasks: Sequence[str]  # (n,) the task the router finds for each; "" where it finds none

    def rows(self, rows: slice) -> Images:
        """Some of the images."""
        return Images(
            features=self.features[rows],
            familiarity=self.familiarity[rows],
            confidence=self.confidence[rows],
            tasks=self.tasks[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one test says of a window."""

    p: float  # of the test alone
    adjusted: float  # p of the test as one of several (Holm)
    effect: float  # whatever the number of images; see the test
    moved: bool  # both are worth an alarm


@dataclass(frozen=True, kw_only=True)
class Window:
    """One window, judged."""

    first: int  # number of its first image, from 0
    images: int  # how many it has
    findings: Mapping[str, Finding]  # by test: ``features``, ``familiarity``, ``confidence``
    confidence: float  # mean probability of the answers
    abstained: float  # share that the router gives to no task
    elsewhere: Mapping[str, float]  # share that it gives to each other task

    @property
    def moved(self) -> bool:
        """Whether any test says so."""
        return any(finding.moved for finding in self.findings.values())


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What is to be done, and by what windows.

    Args:
        action: ``none``; ``recalibrate``: the images changed, the answers are as sure as before;
            ``retrain``: the version is less sure; ``new task`` and ``other task``: most images
            are of no task of the bank, or of one other.
        alarmed: indices of the windows it is about: runs of at least two that moved, or the only
            one.
        confidence: mean over their images; of all windows where none is alarmed.
        abstained: share of the same images.
        elsewhere: share of the same images, by task.
    """

    action: Action
    alarmed: tuple[int, ...]
    confidence: float
    abstained: float
    elsewhere: Mapping[str, float]

    @property
    def other(self) -> str | None:
        """The other task that more images are of than of any third, if any are."""
        return max(self.elsewhere, key=self.elsewhere.__getitem__) if self.elsewhere else None


def check_enough(task: str, held: int, images: int, settings: Settings) -> None:
    """Refuse what nothing can be told of.

    Args:
        task: whose record it is.
        held: held-out images of the record.
        images: new ones.
        settings: how they are to be judged.

    Raises:
        InputError: too few of either.
    """
    if held < LEAST_HELD_OUT:
        raise InputError(
            f"{task} keeps {held} held-out images; at least {LEAST_HELD_OUT} are needed to tell"
            " change from chance",
            fix=f"give {task} more validation images and train it again",
        )
    if images < settings.window:
        raise InputError(
            f"{images} images are no window of {settings.window}",
            fix=f"give more images, or --window {max(LEAST_WINDOW, images)}",
        )


def judge(
    task: str, held_out: HeldOut, images: Images, settings: Settings
) -> tuple[tuple[Window, ...], Advice]:
    """Judge whole windows; images left over at the end are not looked at.

    Args:
        task: what the images are said to be of.
        held_out: of that task.
        images: at least one window of them.
        settings: how.

    Raises:
        InputError: too few images, new ones or held-out ones.
    """
    check_enough(task, len(held_out.features), len(images.tasks), settings)
    windows = []
    for index in range(len(images.tasks) // settings.window):
        first = index * settings.window
        rows = images.rows(slice(first, first + settings.window))
        windows.append(_judge_window(task, held_out, rows, settings, first))
    return tuple(windows), _decide(windows, held_out, settings)


def _judge_window(
    task: str, held_out: HeldOut, images: Images, settings: Settings, first: int
) -> Window:
    """Run the tests, all on the same relabellings where they compare the same images."""
    size, drawn = len(images.tasks), settings.permutations
    labels = relabel(len(held_out.features), size, drawn, (settings.seed, first))
    pooled = principal(np.concatenate([held_out.features, images.features]), settings.dimensions)
    familiarity = np.concatenate([held_out.familiarity, images.familiarity])
    tests = {
        "features": (kernel_test(pooled, labels), settings.least_shift),
        "familiarity": (distribution_test(familiarity, labels), settings.least_distance),
    }
    if held_out.confidence is not None:
        labels = relabel(len(held_out.confidence), size, drawn, (settings.seed, first, 1))
        pooled = np.concatenate([held_out.confidence, images.confidence])
        tests["confidence"] = (fall_test(pooled, labels), settings.least_fall)
    adjusted = holm([difference.p for difference, _ in tests.values()])
    findings = {
        name: Finding(
            p=difference.p,
            adjusted=p,
            effect=difference.effect,
            moved=p <= settings.alpha and difference.effect >= least,
        )
        for (name, (difference, least)), p in zip(tests.items(), adjusted, strict=True)
    }
    counts = Counter(images.tasks)
    return Window(
        first=first,
        images=size,
        findings=findings,
        confidence=float(images.confidence.mean()),
        abstained=counts[""] / size,
        elsewhere={
            name: count / size for name, count in sorted(counts.items()) if name not in {"", task}
        },
    )


def _decide(windows: Sequence[Window], held_out: HeldOut, settings: Settings) -> Advice:
    """Ask for two windows in a row, where there are two, and name what they have in common."""
    moved = [False, *(window.moved for window in windows), False]
    alarmed = tuple(
        index
        for index in range(len(windows))
        if moved[index + 1] and (len(windows) == 1 or moved[index] or moved[index + 2])
    )
    about = [windows[index] for index in alarmed] or list(windows)
    abstained = fmean(window.abstained for window in about)  # windows are of one size
    names = sorted({name for window in about for name in window.elsewhere})
    elsewhere = {name: fmean(w.elsewhere.get(name, 0.0) for w in about) for name in names}
    confidence = fmean(window.confidence for window in about)
    action: Action = "none"
    if alarmed:
        # Of windows of one size; as whole images, for sums of shares are not exact.
        size = sum(window.images for window in about)
        unknown, most_elsewhere = round(abstained * size), as_written(settings.most_elsewhere)
        others = [round(share * size) for share in elsewhere.values()]
        if Fraction(unknown, size) >= as_written(settings.most):
            action = "new task"
        elif Fraction(max(others, default=0), size) >= most_elsewhere:
            action = "other task"
        elif Fraction(unknown + sum(others), size) >= most_elsewhere:
            action = "new task"  # nobody's: a little like several
        elif _fell(about, confidence, held_out, settings):
            action = "retrain"
        else:
            action = "recalibrate"
    return Advice(
        action=action,
        alarmed=alarmed,
        confidence=confidence,
        abstained=abstained,
        elsewhere=elsewhere,
    )


def _fell(
    about: Sequence[Window], confidence: float, held_out: HeldOut, settings: Settings
) -> bool:
    """Whether the version is less sure of the images of these windows, all together."""
    if held_out.confidence is None:
        return False
    fall = float(held_out.confidence.mean()) - confidence
    return fall >= settings.least_fall and any(w.findings["confidence"].moved for w in about)
