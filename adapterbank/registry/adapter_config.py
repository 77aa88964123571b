"""The schema of ``adapter_config.json``: all that is needed to rebuild and to trace an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, FailFast, Field, JsonValue
from pydantic.dataclasses import dataclass

from adapterbank.reading import read_document
from adapterbank.records import InputSpec
from adapterbank.registry.backbone import Sha256

# A head of 100,000 classes is 150 MB at width 384; a file that claims more is an attack or a bug.
MAX_CLASSES = 100_000

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
# FailFast on lists: ten million wrong names of classes, in a file of 30 MB, would be as many errors
# of 400 bytes each.
Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MethodUse:
    """The recipe and its hyper-parameters."""

    name: Text
    hyper: dict[str, JsonValue]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BackboneUse:
    """The backbone the adapter was trained on; ``fingerprint`` is what counts."""

    uri: Text
    fingerprint: Sha256


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataUse:
    """The data the adapter was trained on: where it came from and a hash of its pixels."""

    source: Text
    digest: Text


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AdapterConfig:
    """What ``adapter_config.json`` says. Nothing in it changes from run to run."""

    schema: Literal[1]
    task: Text
    method: MethodUse
    classes: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_CLASSES), FailFast()]
    input: InputSpec
    backbone: BackboneUse
    parents: Annotated[tuple[str, ...], FailFast()]
    data: DataUse
    train: dict[str, JsonValue]
    seed: int
    libraries: dict[str, str]


def parse_adapter_config(data: bytes, *, where: str = "adapter_config.json") -> AdapterConfig:
    """Read ``adapter_config.json``.

    Raises:
        IntegrityError: see :func:`~adapterbank.reading.read_document`.
    """
    return read_document(data, AdapterConfig, where)


def trials_of(train: Mapping[str, Any]) -> int | None:
    """How many trials of a search a version is the best of; None where no search led to it.

    Args:
        train: what its configuration says of its training.
    """
    match train.get("search"):
        case {"trials": int(trials)}:
            return trials
    return None
