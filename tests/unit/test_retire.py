"""Taking a task's aliases away: it is answered no more, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbank.errors import UnknownName
from adapterbank.registry.store import Registry
from tests.registry_samples import files_of, new_registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Return a registry with two versions; the second is champion, the first is challenger."""
    registry = new_registry(tmp_path)
    for seed in range(2):
        registry.register("dtd", files_of("dtd", seed))
    registry.promote("dtd@1", expected=None)
    registry.promote("dtd@2", expected=1)
    registry.promote("dtd@1", alias="challenger", expected=None)
    return registry


def test_all_aliases_go_and_history_says_so(registry: Registry) -> None:
    before = registry.history("dtd")
    events = registry.retire("dtd", actor="ann", reason="sold")
    assert [(e.action, e.alias, e.from_version, e.to_version) for e in events] == [
        ("retire", "challenger", 1, None),
        ("retire", "champion", 2, None),
    ]
    assert registry.history("dtd") == (*before, *events)
    assert registry.aliases("dtd") == {}
    assert registry.verify() == ()


def test_every_version_can_still_be_read(registry: Registry) -> None:
    registry.retire("dtd")
    for number in (1, 2):
        version = registry.resolve(f"dtd@{number}")
        assert registry.read(version)
        assert registry.resolve(f"dtd@sha256:{version.digest}") == version


def test_asking_a_removed_task_says_who_removed_it_and_what_brings_it_back(
    registry: Registry,
) -> None:
    registry.retire("dtd", actor="ann", reason="sold")
    with pytest.raises(UnknownName, match=r"removed by ann at 2026-01-02.*: sold; its") as caught:
        registry.resolve("dtd")
    assert caught.value.fix == "adapterbank promote dtd@2"
    with pytest.raises(UnknownName, match="removed") as caught:
        registry.resolve("dtd@challenger")
    assert caught.value.fix == "adapterbank promote dtd@1 --alias challenger"


def test_a_second_removal_writes_nothing(registry: Registry) -> None:
    registry.retire("dtd")
    path = registry.root / "aliases" / "dtd.json"
    before = path.read_bytes()
    assert registry.retire("dtd") == ()
    assert path.read_bytes() == before


def test_promote_brings_a_task_back_and_a_rollback_does_not_cross_the_removal(
    registry: Registry,
) -> None:
    registry.retire("dtd")
    registry.promote("dtd@1", expected=None)
    assert registry.aliases("dtd") == {"champion": 1}  # no `previous`: what was before is gone
    registry.promote("dtd@2", expected=1)
    assert registry.rollback("dtd").after.version == 1
    assert [e.alias for e in registry.retire("dtd")] == ["champion"]


def test_a_task_that_never_had_an_alias_is_marked_all_the_same(tmp_path: Path) -> None:
    registry = new_registry(tmp_path)
    registry.register("dtd", files_of("dtd"))
    (event,) = registry.retire("dtd")
    assert (event.alias, event.from_version, event.to_version) == ("champion", None, None)
    assert registry.retire("dtd") == ()
    with pytest.raises(UnknownName, match="removed") as caught:
        registry.resolve("dtd")
    assert caught.value.fix == "adapterbank promote dtd@1"


def test_a_verdict_does_not_bring_a_removed_task_back(registry: Registry) -> None:
    registry.retire("dtd")
    registry.record_verdict("dtd@2", {"ok": False})
    assert registry.retire("dtd") == ()
    with pytest.raises(UnknownName, match="removed"):
        registry.resolve("dtd")


def test_an_unknown_task_cannot_be_removed(registry: Registry) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'dtd'"):
        registry.retire("dtx")
