"""The figures of a version: what ``metrics.json`` may say of it."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from adapterbank.reading import read_document, read_object

# Benchmarks and later releases may say more; what is known is of its type.
_STRICT = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
_Number = Annotated[int, Field(ge=0, le=1 << 53)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class _Split:
    """Right answers among images, and the mean loss."""

    correct: _Number
    total: Annotated[_Number, Field(ge=1)]
    loss: float | None = None

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if self.correct > self.total:
            raise ValueError(f"{self.correct} right answers among {self.total} images")
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class _Probe:
    val: _Split | None = None
    test: _Split | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class _Parameters:
    method: _Number
    head: _Number


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class _Metrics:
    val: _Split | None = None
    test: _Split | None = None
    linear_probe: _Probe = field(default_factory=_Probe)
    parameters: _Parameters | None = None


def read_metrics(data: bytes, *, where: str) -> dict[str, Any]:
    """Read the content of ``metrics.json``, all of it; what is known in it has its type and range.

    Raises:
        IntegrityError: it is no object, or a count or a loss in it is none.
    """
    read_document(data, _Metrics, where)
    return read_object(data, where)
