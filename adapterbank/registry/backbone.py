"""The one backbone of a registry, as ``backbone.json`` states it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from adapterbank.errors import IntegrityError
from adapterbank.reading import read_document
from adapterbank.records import InputSpec, Traits
from adapterbank.registry.documents import dump_document
from adapterbank.text import is_conflicted

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="forbid"))
class BackboneRecord:
    """Which frozen network all versions of a registry were trained on.

    ``fingerprint`` covers every weight and the input spec: it, not ``uri``, is the identity.
    """

    schema: Literal[1] = 1
    uri: Annotated[str, Field(min_length=1)]
    arch: Annotated[str, Field(min_length=1)]
    spec: InputSpec
    fingerprint: Sha256
    traits: Traits

    @classmethod
    def from_json(cls, data: bytes, *, where: str = "backbone.json") -> BackboneRecord:
        """Read ``backbone.json``.

        Raises:
            IntegrityError: it is not a backbone record of a known schema.
        """
        name = "registry/backbone.json"
        if is_conflicted(data):
            raise IntegrityError(
                f"{where} has a merge conflict", fix=f"git checkout --ours {name} && git add {name}"
            )
        return read_document(data, cls, where, fix=f"git checkout HEAD -- {name}")

    def to_json(self) -> bytes:
        """Write ``backbone.json``: canonical, one entry a line."""
        return dump_document(asdict(self))
