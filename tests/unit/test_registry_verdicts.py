"""A verdict that moves nothing is kept all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbank.errors import ConflictError, InputError, UnknownName
from adapterbank.registry.aliases import ANY
from adapterbank.registry.store import Registry
from tests.registry_samples import files_of, new_registry

VERDICT = {"outcome": "refused", "accuracy": 0.25}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Return a registry whose champion is the second of three versions of a task."""
    registry = new_registry(tmp_path / "registry")
    for seed in range(3):
        registry.register("dtd", files_of("dtd", seed))
    for number in (1, 2):
        registry.promote(f"dtd@{number}", expected=ANY, actor="ada")
    return registry


def test_a_verdict_is_the_last_event_and_names_the_version(registry: Registry) -> None:
    event = registry.record_verdict("dtd@3", VERDICT, actor="bob", reason="too low")
    assert registry.history("dtd")[-1] == event
    assert (event.action, event.alias) == ("refuse", None)
    assert (event.from_version, event.to_version) == (None, 3)
    assert event.digest == registry.resolve("dtd@3").digest
    assert (event.actor, event.reason, event.verdict) == ("bob", "too low", VERDICT)


def test_a_verdict_moves_nothing(registry: Registry) -> None:
    before = registry.aliases("dtd")
    for number in (3, 2, 1):
        registry.record_verdict(f"dtd@{number}", VERDICT)
    assert Registry.open(registry.root).aliases("dtd") == before
    assert registry.rollback("dtd").after.version == 1
    with pytest.raises(InputError):
        registry.rollback("dtd")
    assert registry.verify() == ()


def test_who_moved_an_alias_last_is_told_past_a_verdict(registry: Registry) -> None:
    registry.record_verdict("dtd@3", VERDICT, actor="bob")
    with pytest.raises(ConflictError, match="promote by ada"):
        registry.promote("dtd@3", expected=1)


@pytest.mark.parametrize("ref", ["dtd@4", "dtd@nobody", "eurosat@1"])
def test_a_verdict_on_what_is_not_there_is_refused(registry: Registry, ref: str) -> None:
    with pytest.raises(UnknownName):
        registry.record_verdict(ref, VERDICT)
