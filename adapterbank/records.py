"""Plain, frozen values that the layers hand to one another. No torch, no I/O.

Dimension letters, the same everywhere in the project:

====  =================================================================
B     images in a batch
P     patches of one image, ``grid[0] * grid[1]``, row-major
N     prompts
T     tokens: prefix tokens, then patches
D     width of the backbone
L     blocks of the backbone
R     rank of the projector
C     classes
K     side of the shared convolution kernel
====  =================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from adapterbank.errors import InputError

AUTO: Final = "auto"
"""Stands for the task of a prediction: the router finds it. No task has this name."""
ROUTER: Final = "router"
"""The registry keeps the router's versions under it, as those of a task. No task has this name."""

BANK_VARIABLE: Final = "ADAPTERBANK_BANK"
"""The environment variable that names the bank where nothing nearer does."""
NOT_UTF8: Final = "this name is not UTF-8"


class Side(StrEnum):
    """Of a merge, as Git names them."""

    OURS = "ours"
    THEIRS = "theirs"


_TASK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_ALIAS = r"[a-z][a-z0-9_-]{0,31}"
_REFERENCE = re.compile(
    r"(?P<task>[^@]+)(?:@(?:sha256:(?P<digest>[0-9a-f]{4,64})|(?P<version>[0-9]{1,9})"
    rf"|(?P<alias>{_ALIAS})))?"
)


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """How pixels become the backbone's input; one for a whole registry.

    Images are squashed to ``size`` (height, width) ignoring aspect, as VTAB-1k does, scaled to
    [0, 1], then normalised with ``mean`` and ``std`` (each RGB).
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a method may know of a backbone. Code asks these, never a backbone's name."""

    width: int  # D
    blocks: int  # L
    patch: tuple[int, int]
    grid: tuple[int, int]  # patches down, patches across, for the registry's input size
    prefix_tokens: int  # CLS and registers, before the patches
    pool: str  # "token" (CLS), "avg", "map", ...
    parameters: int

    @property
    def patches(self) -> int:
        """P, the number of patch tokens."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Correct answers among ``total``; a count, so that means can be taken exactly."""

    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """Fraction in [0, 1]; NaN of an empty set."""
        return self.correct / self.total if self.total else float("nan")


@dataclass(frozen=True, kw_only=True)
class Route:
    """What a router says of one image.

    Args:
        outcome: one ``task``; ``ambiguous``, where another is nearly as likely; ``abstain``, where
            the image is of no task.
        task: the likeliest task; None where it abstains.
        score: how familiar the image is; comparable within one router only.
        p_value: the share of the task's own held-out images that are as unfamiliar as this one.
        margin: lead in probability over the second task; 1 where there is no second.
        candidates: tasks and their probabilities, given that it is one of them; likeliest first.
        router: digest of the router's version, where it is one of a registry.
    """

    outcome: Literal["task", "ambiguous", "abstain"]
    task: str | None
    score: float
    p_value: float
    margin: float
    candidates: tuple[tuple[str, float], ...]
    router: str | None = None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer for one image, with the version that gave it."""

    image: str
    task: str
    version: int
    digest: str
    label: str
    probability: float
    top_k: tuple[tuple[str, float], ...]
    latency_ms: float
    route: Route | None = None  # how the task was found, where nobody named it


@dataclass(frozen=True, kw_only=True)
class Abstention:
    """The answer for an image that belongs to no task of the bank."""

    image: str
    route: Route
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A parsed ``dtd``, ``dtd@champion``, ``dtd@3`` or ``dtd@sha256:1f0c…``.

    Exactly one of ``alias``, ``version`` and ``digest`` is set; a bare name means ``@champion``.
    """

    task: str
    alias: str | None = None
    version: int | None = None
    digest: str | None = None  # a prefix of at least four hexadecimal digits

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse a reference.

        Raises:
            InputError: it has none of the four forms.
        """
        match = _REFERENCE.fullmatch(text.strip())
        if match is None:
            raise InputError(
                f"{text!r} is not a reference: expected TASK, TASK@ALIAS, TASK@3 or"
                " TASK@sha256:DIGEST",
                fix="adapterbank list",
            )
        task = check_task_name(match["task"])
        if match["digest"]:
            return cls(task=task, digest=match["digest"])
        if match["version"]:
            return cls(task=task, version=int(match["version"]))
        return cls(task=task, alias=match["alias"] or "champion")

    def __str__(self) -> str:
        if self.digest is not None:
            return f"{self.task}@sha256:{self.digest}"
        return f"{self.task}@{self.version if self.version is not None else self.alias}"


def is_utf8(name: str) -> bool:
    """Whether the name of a file or folder is UTF-8, as records, JSON and DVC want it."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)  # bytes that are none


def check_utf8(name: str) -> str:
    """Return the name of a file or folder if it is UTF-8.

    Raises:
        InputError: it is not.
    """
    if not is_utf8(name):
        raise InputError(f"{name}: {NOT_UTF8}", fix="rename it")
    return name


def check_task_name(name: object) -> str:
    """Return ``name`` if it is a legal task name.

    Names become folder names, URLs and MLflow model names, so the alphabet is small on purpose.

    Raises:
        InputError: the name could not be one of these everywhere.
    """
    if not isinstance(name, str) or not _TASK_NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is not a task name: use 1 to 64 of a-z, 0-9, '-' and '_', starting with"
            " a letter or a digit"
        )
    return name


def check_alias_name(alias: object) -> str:
    """Return ``alias`` if a reference may have it, and MLflow too.

    Raises:
        InputError: it is no legal name, or one that MLflow keeps for itself.
    """
    if not isinstance(alias, str) or not re.fullmatch(_ALIAS, alias):
        raise InputError(
            f"{alias!r} is not an alias: use 1 to 32 of a-z, 0-9, '-' and '_', starting with a"
            " letter"
        )
    if re.fullmatch(r"latest|v[0-9]+", alias):
        raise InputError(
            f"{alias!r} cannot be an alias: MLflow, which mirrors aliases, keeps 'latest' and"
            " 'v' with a number for itself"
        )
    return alias


def check_new_task(name: str) -> str:
    """Return ``name`` if a task may be called so.

    Raises:
        InputError: it is no legal name, or one that stands for something else.
    """
    if check_task_name(name) in {AUTO, ROUTER}:
        raise InputError(
            f"{name!r} cannot be a task's name: 'auto' asks the router, 'router' is the router",
            fix="choose another name",
        )
    return name
