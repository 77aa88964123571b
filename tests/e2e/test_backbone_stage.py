"""The backbone of a bank: fetched once, mended when damaged, never exchanged under versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from adapterbank.backbones.fingerprint import fingerprint
from adapterbank.continual.bank import Bank
from adapterbank.continual.stages import fetch_backbone
from adapterbank.errors import ConflictError, IntegrityError
from adapterbank.inference.predictor import load_bank_backbone
from tests.bank_samples import damage
from tests.cli_samples import PARAMS

OTHER = PARAMS.replace("seed=0", "seed=1")


@pytest.fixture
def fresh(tmp_path: Path) -> Bank:
    """Return a bank that has parameters and nothing else."""
    return configured(tmp_path / "fresh", PARAMS)


def configured(root: Path, params: str) -> Bank:
    path = root / "pipelines" / "params.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(params)
    return Bank.open(root)


def weights(bank: Bank) -> Path:
    return bank.registry.backbone_weights


def test_the_record_says_what_the_weights_are(fresh: Bank) -> None:
    record = fetch_backbone(fresh)
    assert fresh.registry.backbone() == record
    assert record.spec.size == (32, 32)
    assert record.fingerprint == fingerprint(load_file(weights(fresh)), record.spec)
    assert load_bank_backbone(fresh.registry).traits == record.traits


def test_fetching_again_writes_nothing(fresh: Bank) -> None:
    record = fetch_backbone(fresh)
    before = weights(fresh).stat()
    assert fetch_backbone(fresh) == record
    after = weights(fresh).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_forced_fetch_writes_the_same_bytes(fresh: Bank) -> None:
    fetch_backbone(fresh)
    before, inode = weights(fresh).read_bytes(), weights(fresh).stat().st_ino
    fetch_backbone(fresh, force=True)
    assert weights(fresh).read_bytes() == before
    assert weights(fresh).stat().st_ino != inode


@pytest.mark.parametrize("harm", ["flipped bit", "truncated", "missing", "no record"])
def test_damage_is_mended(fresh: Bank, harm: str) -> None:
    record = fetch_backbone(fresh)
    path = weights(fresh)
    good = path.read_bytes()
    if harm == "flipped bit":
        damage(path)
    elif harm == "truncated":
        path.write_bytes(good[:1000])
    elif harm == "missing":
        path.unlink()
    else:
        (fresh.registry.root / "backbone.json").unlink()
    assert fetch_backbone(fresh) == record
    assert path.read_bytes() == good


def test_damage_is_mended_under_versions_too(bank: Path) -> None:
    opened = Bank.open(bank)
    good = weights(opened).read_bytes()
    damage(weights(opened))
    fetch_backbone(opened)
    assert weights(opened).read_bytes() == good


def test_another_backbone_may_be_chosen_while_there_are_no_versions(fresh: Bank) -> None:
    first = fetch_backbone(fresh)
    second = fetch_backbone(configured(fresh.root, OTHER))
    assert first.fingerprint != second.fingerprint
    assert load_bank_backbone(fresh.registry).fingerprint == second.fingerprint


@pytest.mark.parametrize(
    "params",
    [
        OTHER,
        PARAMS.replace("[32, 32]", "[64, 64]"),
        PARAMS.replace("size: [", "std: [1, 1, 1]\n  size: ["),
    ],
    ids=["other weights", "other size", "other statistics"],
)
def test_another_backbone_is_refused_once_there_are_versions(bank: Path, params: str) -> None:
    before = weights(Bank.open(bank)).read_bytes()
    record = Bank.open(bank).registry.backbone()
    with pytest.raises(ConflictError, match="would make them answer wrongly"):
        fetch_backbone(configured(bank, params))
    assert weights(Bank.open(bank)).read_bytes() == before
    assert Bank.open(bank).registry.backbone() == record


def test_the_backbones_own_statistics_are_used_where_none_are_set(tmp_path: Path) -> None:
    own = fetch_backbone(configured(tmp_path / "own", PARAMS)).spec
    text = PARAMS.replace("size: [", "mean: [0.5, 0.25, 0.125]\n  size: [")
    named = fetch_backbone(configured(tmp_path / "named", text)).spec
    assert named.mean == (0.5, 0.25, 0.125)
    assert named.std == own.std


def test_a_damaged_record_is_not_written_over_and_says_how_to_get_it_back(fresh: Bank) -> None:
    fetch_backbone(fresh)
    path = fresh.registry.root / "backbone.json"
    path.write_text("{}")
    with pytest.raises(IntegrityError, match=r"backbone\.json") as caught:
        fetch_backbone(fresh)
    assert caught.value.fix == "git checkout -- registry/backbone.json"
    assert path.read_text() == "{}"
