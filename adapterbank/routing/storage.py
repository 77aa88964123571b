"""Between a router and its two files: equal routers give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from safetensors.numpy import load, save

from adapterbank.errors import IntegrityError
from adapterbank.routing.metric import Metric, Spread
from adapterbank.routing.record import Floats, triangle
from adapterbank.routing.router import Router
from adapterbank.routing.scores import TaskPart

CONFIG = "router.json"
TENSORS = "router.safetensors"
_SCHEMA: Final = 2

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
class _Block:
    block: Count
    within: _Shape
    background: _Shape


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class _Settings:
    mode: Literal["pooled", "isolated"]
    alpha: Annotated[float, Field(gt=0, lt=1)]
    margin: Annotated[float, Field(ge=0, le=1)]
    cap: Annotated[int, Field(ge=2)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class _Config:
    schema: Literal[2]
    backbone: str
    width: Count
    settings: _Settings
    temperature: Annotated[float, Field(gt=0)]
    blocks: Annotated[list[_Block], Field(min_length=1)]
    reference: str
    aside: str
    tasks: dict[str, _Task]


def pack_router(router: Router) -> dict[str, bytes]:
    """Write a router.

    Returns:
        Bytes by file name: ``router.json`` for people and checks, ``router.safetensors`` with
        ``within`` and ``background`` (L, D·(D+1)/2), upper triangles by rows of Lᵀ after each
        block, ``turn`` (L, D, D), ``mean`` and ``between`` (L, D), ``prototypes`` (L, sum of C, D),
        ``counts`` (sum of C,) and ``calibration`` (sum of K,), tasks by name; float64 but for
        counts, which are int64.
    """
    spreads, parts = router.spreads, router.parts
    config = _Config(
        schema=_SCHEMA,
        backbone=router.backbone,
        width=router.width,
        settings=_Settings(
            mode=router.mode, alpha=router.alpha, margin=router.margin, cap=router.cap
        ),
        temperature=router.temperature,
        reference=router.reference,
        aside=router.aside,
        blocks=[
            _Block(block=block, within=_shape(spread.within), background=_shape(spread.background))
            for block, spread in zip(router.blocks, spreads, strict=True)
        ],
        tasks={
            task: _Task(
                classes=len(part.counts),
                calibration=len(part.calibration),
                record=router.sources[task],
            )
            for task, part in parts.items()
        },
    )
    same = np.eye(router.width)
    turns = [same if spread.within.turn is None else spread.within.turn for spread in spreads]
    tensors = {
        "within": np.stack([triangle(spread.within.factor.T) for spread in spreads]),
        "background": np.stack([triangle(spread.background.factor.T) for spread in spreads]),
        "turn": np.stack(turns),
        "mean": np.stack([spread.background.mean for spread in spreads]),
        "between": np.stack([spread.between for spread in spreads]),
        "prototypes": np.concatenate([part.prototypes for part in parts.values()], axis=1),
        "counts": np.concatenate([part.counts for part in parts.values()]),
        "calibration": np.concatenate([part.calibration for part in parts.values()]),
    }
    text = json.dumps(asdict(config), indent=1, sort_keys=True, allow_nan=False)
    return {CONFIG: f"{text}\n".encode(), TENSORS: save(tensors)}


def _shape(metric: Metric) -> _Shape:
    return _Shape(shrinkage=metric.shrinkage, jitter=metric.jitter)


def unpack_router(files: Mapping[str, bytes], *, where: str) -> Router:
    """Read a router back; it judges with the same bits.

    Args:
        files: content by file name.
        where: what errors call it.

    Raises:
        IntegrityError: a file is missing or is none of a router's, or they do not fit together.
    """
    try:
        _check_schema(files[CONFIG], where)
        config = TypeAdapter(_Config).validate_json(files[CONFIG])
        tensors = load(files[TENSORS])
        arrays = {name: tensors[name].astype(np.float64) for name in _NAMES}
    except (ValidationError, SafetensorError, KeyError, ValueError) as error:
        raise IntegrityError(
            f"{where} is not a router: {error}", fix="adapterbank router rebuild"
        ) from error
    _check_shapes(config, arrays, where)
    parts, row, start = {}, 0, 0
    for task, stated in sorted(config.tasks.items()):
        parts[task] = TaskPart(
            prototypes=np.ascontiguousarray(arrays["prototypes"][:, row : row + stated.classes]),
            counts=arrays["counts"][row : row + stated.classes].astype(np.int64),
            calibration=arrays["calibration"][start : start + stated.calibration],
        )
        row, start = row + stated.classes, start + stated.calibration
    return Router(
        alpha=config.settings.alpha,
        margin=config.settings.margin,
        cap=config.settings.cap,
        backbone=config.backbone,
        blocks=tuple(stated.block for stated in config.blocks),
        spreads=tuple(_spread(stated, arrays, n) for n, stated in enumerate(config.blocks)),
        temperature=config.temperature,
        parts=parts,
        sources={task: stated.record for task, stated in sorted(config.tasks.items())},
        reference=config.reference,
        aside=config.aside,
    )


def _check_schema(data: bytes, where: str) -> None:
    """Name a router of another layout as what it is."""
    content = json.loads(data)
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != _SCHEMA:
        raise IntegrityError(
            f"{where} is of layout {schema}, this adapterbank reads {_SCHEMA}",
            fix="adapterbank router rebuild",
        )


def _check_shapes(config: _Config, arrays: Mapping[str, Floats], where: str) -> None:
    blocks = [stated.block for stated in config.blocks]
    if blocks != sorted(set(blocks)):
        raise IntegrityError(
            f"{where} is not a router: of blocks {blocks}, expected ascending ones"
        )
    layers, width, tasks = len(config.blocks), config.width, config.tasks.values()
    packed = (layers, width * (width + 1) // 2)
    expected = {
        "within": packed,
        "background": packed,
        "turn": (layers, width, width),
        "mean": (layers, width),
        "between": (layers, width),
        "prototypes": (layers, sum(task.classes for task in tasks), width),
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


def _spread(stated: _Block, arrays: Mapping[str, Floats], layer: int) -> Spread:
    mean = arrays["mean"][layer]
    turn = arrays["turn"][layer]
    return Spread(
        within=_metric(stated.within, np.zeros_like(mean), arrays["within"][layer], turn),
        background=_metric(stated.background, mean, arrays["background"][layer]),
        between=arrays["between"][layer],
    )


def _metric(stated: _Shape, mean: Floats, packed: Floats, turn: Floats | None = None) -> Metric:
    width = len(mean)
    upper = np.zeros((width, width))
    upper[np.triu_indices(width)] = packed
    return Metric(
        mean=mean, factor=upper.T, turn=turn, shrinkage=stated.shrinkage, jitter=stated.jitter
    )
