"""Between a router and its two files: equal routers give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from safetensors.numpy import save

from adapterbank.errors import IntegrityError
from adapterbank.reading import Tensors, read_document, read_object, read_tensors
from adapterbank.routing.metric import Metric, Spread
from adapterbank.routing.record import Floats, triangle
from adapterbank.routing.router import Router
from adapterbank.routing.scores import TaskPart

CONFIG = "router.json"
TENSORS = "router.safetensors"
_SCHEMA: Final = 2
_FIX: Final = "adapterbank router rebuild"

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
    missing = sorted({CONFIG, TENSORS} - files.keys())
    if missing:
        raise IntegrityError(f"{where} is not a router: it lacks {missing[0]}", fix=_FIX)
    _check_schema(files[CONFIG], where)
    config = read_document(files[CONFIG], _Config, f"{where}/{CONFIG}", fix=_FIX)
    arrays = read_tensors(files[TENSORS], f"{where}/{TENSORS}", fix=_FIX)
    _check_shapes(config, arrays, where)
    _check_solvable(config, arrays, where)
    parts, row, start = {}, 0, 0
    for task, stated in sorted(config.tasks.items()):
        parts[task] = TaskPart(
            prototypes=np.ascontiguousarray(arrays["prototypes"][:, row : row + stated.classes]),
            counts=arrays["counts"][row : row + stated.classes],
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
    schema = read_object(data, f"{where}/{CONFIG}", fix=_FIX).get("schema")
    if schema != _SCHEMA:
        raise IntegrityError(
            f"{where} is of layout {schema}, this adapterbank reads {_SCHEMA}", fix=_FIX
        )


def _check_shapes(config: _Config, arrays: Tensors, where: str) -> None:
    if set(arrays) != set(_NAMES):
        raise IntegrityError(
            f"{where} is not a router: it has tensors {', '.join(sorted(arrays)) or 'of none'},"
            f" expected {', '.join(sorted(_NAMES))}",
            fix=_FIX,
        )
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
        array, kind = arrays[name], np.dtype(np.int64 if name == "counts" else np.float64)
        if array.shape != shape or array.dtype != kind or not tasks:
            raise IntegrityError(
                f"{where} is not a router: {name!r} is {array.dtype} of shape {array.shape},"
                f" expected {kind} of shape {shape}",
                fix=_FIX,
            )


def _check_solvable(config: _Config, arrays: Tensors, where: str) -> None:
    """Refuse factors that no covariance has: their diagonals are positive."""
    width = config.width
    diagonal = np.cumsum([0, *range(width, 1, -1)])  # places in a triangle packed by rows
    for name in ("within", "background"):
        if (arrays[name][:, diagonal] <= 0).any():
            raise IntegrityError(f"{where} is not a router: {name!r} is singular", fix=_FIX)
    if (arrays["counts"] < 1).any():
        raise IntegrityError(f"{where} is not a router: a class has no image", fix=_FIX)


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
