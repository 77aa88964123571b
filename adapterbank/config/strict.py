"""The base of every section of `pipelines/params.yaml`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A section of `pipelines/params.yaml`: frozen, every key known, every value of its type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
