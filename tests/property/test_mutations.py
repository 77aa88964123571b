"""Whatever happens to the bytes of a version, it is refused with one kind of error."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapterbank.errors import IntegrityError
from adapterbank.registry.adapter_config import parse_adapter_config
from adapterbank.registry.aliases import ANY, add_version, move_alias
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.checks import check_sound
from adapterbank.registry.manifest import build_manifest
from adapterbank.registry.store import Registry
from adapterbank.registry.task_record import Stamp, TaskRecord, dump_record, parse_record
from tests.damage import FILES, expect_refusal, new_bank, restored


@st.composite
def mutated(draw: st.DrawFn, sound: bytes) -> bytes:
    """Insert, delete, replace or duplicate runs of bytes, once or a few times."""
    changed = sound
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(changed)))
        end = min(len(changed), start + draw(st.integers(0, 64) | st.just(1 << 20)))
        run, drawn = changed[start:end], draw(st.binary(max_size=64))
        middle = draw(st.sampled_from((run + drawn, b"", drawn, run + run, run[::-1])))
        changed = changed[:start] + middle + changed[end:]
    return changed


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Return a registry that every example leaves as it was."""
    return new_bank(tmp_path_factory.mktemp("mutations") / "registry")


@pytest.mark.parametrize("name", FILES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_mutation_of_a_file_of_a_version_is_an_integrity_error(
    registry: Registry, name: str, data: st.DataObject
) -> None:
    version = registry.resolve("bugs")
    with restored(version.path / name) as sound:
        changed = data.draw(mutated(sound))
        (version.path / name).write_bytes(changed)
        if changed == sound:
            registry.read(version)
        else:
            expect_refusal(registry, version, name)


@pytest.mark.parametrize("name", [name for name in FILES if name != "manifest.json"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_content_that_no_hash_guards_yet_is_sound_or_an_integrity_error(
    registry: Registry, name: str, data: st.DataObject
) -> None:
    # What `register` is given: the only place where bytes nobody vouches for are parsed.
    files = registry.read(registry.resolve("bugs"))
    del files["manifest.json"]
    files[name] = data.draw(mutated(files[name]))
    try:
        build_manifest(files)
        check_sound("bugs", files, registry.backbone(), where="new")
    except IntegrityError as error:
        assert f"new/{name}" in error.message or "head." in error.message  # noqa: PT017
    else:
        assert parse_adapter_config(files["adapter_config.json"]).task == "bugs"


def _record() -> TaskRecord:
    stamp = Stamp(actor="ada", reason="because", time="2026-01-02T03:04:05Z")
    record = TaskRecord(task="bugs")
    for version in (1, 2):
        record = add_version(record, f"{version:04x}" * 16, stamp)
        record = move_alias(record, "champion", version, ANY, stamp)
    return record


@given(data=st.data())
def test_any_mutation_of_an_alias_file_is_an_integrity_error_or_serves_the_same(
    data: st.DataObject,
) -> None:
    record = _record()
    changed = data.draw(mutated(dump_record(record)))
    try:
        told = parse_record(changed, "bugs", where="aliases/bugs.json")
    except IntegrityError as error:
        assert "aliases/bugs.json" in error.message  # noqa: PT017  # most are refused, not all
    else:
        assert told.aliases == record.aliases
        assert told.versions == record.versions


@given(data=st.data())
def test_any_mutation_of_the_backbones_record_is_an_integrity_error_or_a_record(
    registry: Registry, data: st.DataObject
) -> None:
    sound = (registry.root / "backbone.json").read_bytes()
    try:
        told = BackboneRecord.from_json(data.draw(mutated(sound)))
    except IntegrityError as error:
        assert "backbone.json" in error.message  # noqa: PT017  # most are refused, not all
    else:
        assert len(told.fingerprint) == 64
