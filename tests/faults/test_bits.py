"""Every bit counts: no flipped bit and no lost byte, anywhere in a bank, is served.

All bits of files up to 4 kB are flipped one at a time, and several hundred spread over each larger
file. The alias files, which need no backbone, are in ``tests/unit/test_record_bits.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbank.backbones.loading import load
from adapterbank.errors import IntegrityError
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.store import Registry
from tests.damage import FILES, answers, expect_refusal, flipped, flips, new_bank, restored


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Return a registry that every test leaves as it was."""
    return new_bank(tmp_path_factory.mktemp("bits") / "registry")


def test_a_real_version_has_every_kind_of_file(registry: Registry) -> None:
    assert set(registry.read(registry.resolve("bugs"))) == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_of_a_version_is_refused_by_the_name_of_its_file(
    registry: Registry, name: str
) -> None:
    version, before = registry.resolve("bugs"), answers(registry)
    tried = 0
    with restored(version.path / name) as sound:
        for position, bit in flips(len(sound), 600):
            (version.path / name).write_bytes(flipped(sound, position, bit))
            expect_refusal(registry, version, name)
            tried += 1
        assert tried == min(8 * len(sound), 600) or len(sound) <= 4096
        (problem,) = registry.verify("bugs")
        assert (problem.kind, problem.path) == ("damaged", version.path)
        assert answers(registry) == before
    assert registry.verify() == ()


@pytest.mark.parametrize("name", FILES)
def test_a_version_cut_at_any_length_is_refused_by_the_name_of_its_file(
    registry: Registry, name: str
) -> None:
    version = registry.resolve("bugs")
    with restored(version.path / name) as sound:
        every = 1 if len(sound) <= 4096 else 17  # prime to the sizes of numbers
        for length in {*range(0, len(sound), every), len(sound) - 1}:
            (version.path / name).write_bytes(sound[:length])
            expect_refusal(registry, version, name)
        for more in (b"\0", b"\n", sound):
            (version.path / name).write_bytes(sound + more)
            expect_refusal(registry, version, name)


def _load(registry: Registry, record: BackboneRecord) -> None:
    load(registry.backbone_weights, record.spec, arch=record.arch, expected=record.fingerprint)


def test_a_flipped_bit_of_the_backbones_weights_is_refused(registry: Registry) -> None:
    record, path = registry.backbone(), registry.backbone_weights
    with restored(path) as sound:
        header = 8 + int.from_bytes(sound[:8], "little")
        places = [(position, position % 8) for position in range(header)]
        places += [(position, bit) for position in range(8) for bit in range(8)]
        places += [(header + p, bit) for p, bit in flips(len(sound) - header, 600)]
        for position, bit in places:
            path.write_bytes(flipped(sound, position, bit))
            with pytest.raises(IntegrityError, match=r"model\.safetensors|of vit_tiny") as caught:
                _load(registry, record)
            assert (caught.value.fix or "").startswith("adapterbank backbone fetch")
        with pytest.raises(IntegrityError, match="fingerprint"):
            answers(registry)
    _load(registry, record)


def test_weights_of_the_backbone_cut_at_any_length_are_refused(registry: Registry) -> None:
    record, path = registry.backbone(), registry.backbone_weights
    with restored(path) as sound:
        for length in {*range(32), *range(0, len(sound), 997), len(sound) - 1}:
            path.write_bytes(sound[:length])
            with pytest.raises(IntegrityError, match=r"model\.safetensors"):
                _load(registry, record)


def test_a_flipped_bit_of_the_backbones_record_is_refused_or_in_its_source_alone(
    registry: Registry,
) -> None:
    # Where the weights were fetched from is not what they are: only the fingerprint decides that.
    record, path = registry.backbone(), registry.root / "backbone.json"
    survived = 0
    with restored(path) as sound:
        for position, bit in flips(len(sound), 0):
            changed = flipped(sound, position, bit)
            try:
                told = BackboneRecord.from_json(changed, where=str(path))
            except IntegrityError as error:
                assert str(path) in error.message  # noqa: PT017  # most are refused, not all
                continue
            if told.arch != record.arch and position % 4:
                continue  # the fingerprint covers all of them alike
            survived += 1
            path.write_bytes(changed)
            if (told.arch, told.spec, told.fingerprint, told.traits) == (
                record.arch, record.spec, record.fingerprint, record.traits,
            ):  # fmt: skip
                assert told.uri != record.uri
                continue
            with pytest.raises(IntegrityError, match=r"fingerprint|backbone\.json states"):
                load_bank_backbone(registry)
    assert survived > 400
    load_bank_backbone(registry)


def test_every_file_of_a_bank_is_one_whose_bits_are_flipped_here(registry: Registry) -> None:
    known = {*FILES, "model.safetensors", "backbone.json", "bugs.json", "colours.json", ".lock"}
    found = {path.name for path in Path(registry.root).rglob("*") if path.is_file()}
    assert found == known
