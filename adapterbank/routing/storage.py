"""Between a router and its two files: equal routers give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from safetensors.numpy import load, save

from adapterbank.errors import IntegrityError
from adapterbank.routing.metric import Metric, Spread
from adapterbank.routing.mixtures import TaskPart
from adapterbank.routing.router import Router, RouterSettings
from adapterbank.routing.statistics import Floats, triangle

__all__ = ["CONFIG", "TENSORS", "pack_router", "unpack_router"]

CONFIG = "router.json"
TENSORS = "router.safetensors"

_NAMES = ("within", "turn", "background", "mean", "between", "prototypes", "counts", "calibration")

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class _Task:
    classes: Count
    calibration: Annotated[int, Field(ge=0)]
    record: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class _Shape:
    shrinkage: float
    jitter: float


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class _Config:
    schema: Literal[1]
    backbone: str
    width: Count
    settings: RouterSettings
    temperature: Annotated[float, Field(gt=0)]
    within: _Shape
    background: _Shape
    tasks: dict[str, _Task]


def pack_router(router: Router) -> dict[str, bytes]:
    """Write a router.

    Returns:
        Bytes by file name: ``router.json`` for people and checks, ``router.safetensors`` with
        ``within`` and ``background`` (upper triangles by rows of Lᵀ), ``turn`` (D, D), ``mean``
        and ``between`` (D,), ``prototypes`` (sum of C, D), ``counts`` (sum of C,) and
        ``calibration`` (sum of K,), tasks by name; float64 but for counts, which are int64.
    """
    settings, spread, parts = router.settings, router.spread, router.parts
    config = {
        "schema": 1,
        "backbone": router.backbone,
        "width": router.width,
        "settings": {
            "mode": settings.mode,
            "alpha": settings.alpha,
            "margin": settings.margin,
            "cap": settings.cap,
        },
        "temperature": router.temperature,
        "within": {"shrinkage": spread.within.shrinkage, "jitter": spread.within.jitter},
        "background": {
            "shrinkage": spread.background.shrinkage,
            "jitter": spread.background.jitter,
        },
        "tasks": {
            task: {
                "classes": len(part.prototypes),
                "calibration": len(part.calibration),
                "record": router.sources[task],
            }
            for task, part in parts.items()
        },
    }
    tensors = {
        "within": triangle(spread.within.factor.T),
        "background": triangle(spread.background.factor.T),
        "turn": np.eye(router.width) if spread.within.turn is None else spread.within.turn,
        "mean": spread.background.mean,
        "between": spread.between,
        "prototypes": np.concatenate([part.prototypes for part in parts.values()]),
        "counts": np.concatenate([part.counts for part in parts.values()]),
        "calibration": np.concatenate([part.calibration for part in parts.values()]),
    }
    text = json.dumps(config, indent=1, sort_keys=True, allow_nan=False)
    return {CONFIG: f"{text}\n".encode(), TENSORS: save(tensors)}


def unpack_router(files: Mapping[str, bytes], *, where: str) -> Router:
    """Read a router back; it judges with the same bits.

    Args:
        files: content by file name.
        where: what errors call it.

    Raises:
        IntegrityError: a file is missing or is none of a router's, or they do not fit together.
    """
    try:
        config = TypeAdapter(_Config).validate_json(files[CONFIG])
        tensors = load(files[TENSORS])
        arrays = {name: tensors[name].astype(np.float64) for name in _NAMES}
    except (ValidationError, SafetensorError, KeyError, ValueError) as error:
        raise IntegrityError(
            f"{where} is not a router: {error}", fix="adapterbank router rebuild"
        ) from error
    _check_shapes(config, arrays, where)
    within = _metric(config.within, np.zeros(config.width), arrays["within"], arrays["turn"])
    background = _metric(config.background, arrays["mean"], arrays["background"])
    parts, row, held = {}, 0, 0
    for task, stated in sorted(config.tasks.items()):
        parts[task] = TaskPart(
            prototypes=arrays["prototypes"][row : row + stated.classes],
            counts=arrays["counts"][row : row + stated.classes].astype(np.int64),
            calibration=arrays["calibration"][held : held + stated.calibration],
        )
        row, held = row + stated.classes, held + stated.calibration
    return Router(
        settings=config.settings,
        backbone=config.backbone,
        spread=Spread(within=within, background=background, between=arrays["between"]),
        temperature=config.temperature,
        parts=parts,
        sources={task: stated.record for task, stated in sorted(config.tasks.items())},
    )


def _check_shapes(config: _Config, arrays: Mapping[str, Floats], where: str) -> None:
    width, tasks = config.width, config.tasks.values()
    packed = (width * (width + 1) // 2,)
    expected = {
        "within": packed,
        "background": packed,
        "turn": (width, width),
        "mean": (width,),
        "between": (width,),
        "prototypes": (sum(task.classes for task in tasks), width),
        "counts": (sum(task.classes for task in tasks),),
        "calibration": (sum(task.calibration for task in tasks),),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all() or not tasks:
            raise IntegrityError(
                f"{where} is not a router: {name!r} has shape {arrays[name].shape}, expected"
                f" {shape} finite numbers",
                fix="adapterbank router rebuild",
            )


def _metric(stated: _Shape, mean: Floats, packed: Floats, turn: Floats | None = None) -> Metric:
    width = len(mean)
    upper = np.zeros((width, width))
    upper[np.triu_indices(width)] = packed
    return Metric(
        mean=mean, factor=upper.T, turn=turn, shrinkage=stated.shrinkage, jitter=stated.jitter
    )
