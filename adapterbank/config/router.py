"""How routing records are made and the router is built: the section `router`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from adapterbank.config.strict import Strict
from adapterbank.errors import InputError
from adapterbank.records import Reference

_Block = Annotated[int, Field(ge=1)]


class RouterConfig(Strict):
    """How routing records are made, and how the router is built from them.

    ``blocks`` says after which blocks a version's record keeps features: another choice trains all
    tasks again. The rest is of the router alone, which ``release`` builds anew.
    """

    blocks: Annotated[tuple[_Block, ...], Field(min_length=1)] | None = None  # None: middle, last
    # A version, such as places@1, whose record alone gives the covariances, so that no other task
    # moves a score; no image is ever given to its task. None: of all tasks together.
    reference: str | None = None
    # Share of a task's own images that are rejected as unknown.
    alpha: float = Field(default=0.05, gt=0.0, lt=1.0)
    margin: float = Field(default=0.2, ge=0.0, le=1.0)  # of probability, between two tasks
    cap: int = Field(default=400, ge=2)  # images a task counts for at most in a pooled covariance

    @field_validator("reference")
    @classmethod
    def _stays_what_it_is(cls, reference: str | None) -> str | None:
        if reference is None:
            return None
        try:
            pinned = Reference.parse(reference)
        except InputError as error:
            raise ValueError(error.message) from error
        if pinned.alias is not None:
            raise ValueError(f"an alias may move, expected one version, such as {pinned.task}@1")
        return reference

    @property
    def aside(self) -> str | None:
        """The task of the reference: measured by, but no image is ever given to it."""
        return None if self.reference is None else Reference.parse(self.reference).task

    def recorded(self, depth: int) -> tuple[int, ...]:
        """The blocks that records are of, ascending; the last is always one.

        Args:
            depth: blocks of the backbone.

        Raises:
            InputError: the backbone has not so many.
        """
        asked = (max(1, depth // 2), depth) if self.blocks is None else (*self.blocks, depth)
        if max(asked) > depth:
            raise InputError(
                f"router.blocks is {list(self.blocks or ())}, the backbone has {depth} blocks",
                fix=f"set router.blocks in pipelines/params.yaml to null or numbers up to {depth}",
            )
        return tuple(sorted(set(asked)))
