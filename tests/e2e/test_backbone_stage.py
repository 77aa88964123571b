"""The backbone of a bank: fetched once, mended when damaged, never exchanged under versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from adapterbank.backbones.fingerprint import fingerprint
from adapterbank.backbones.identity import parse_arch
from adapterbank.backbones.sources import fetch
from adapterbank.bank.bank import Bank
from adapterbank.bank.ready import backbone_is_ready
from adapterbank.errors import ConflictError, IntegrityError
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.pipeline.backbone import fetch_backbone
from tests.bank_samples import damage
from tests.cli_samples import PARAMS

OTHER = PARAMS.replace("seed=0", "seed=1")
DRAWN = "random://vit_tiny_patch16_224?seed={}&depth=2&embed_dim=32&num_heads=2"
QUERY = "arch=vit_tiny_patch16_224&depth=2&embed_dim=32&num_heads=2"

each_other_backbone = pytest.mark.parametrize(
    "params",
    [
        OTHER,
        PARAMS.replace("[32, 32]", "[64, 64]"),
        PARAMS.replace("size: [", "std: [1, 1, 1]\n  size: ["),
    ],
    ids=["other weights", "other size", "other statistics"],
)


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
    state = load_file(weights(fresh))
    assert record.fingerprint == fingerprint(state, record.spec, *parse_arch(record.arch))
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


@each_other_backbone
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
    assert caught.value.fix == "git checkout HEAD -- registry/backbone.json"
    assert path.read_text() == "{}"


# --- files of weights ----------------------------------------------------------------------------


def from_file(root: Path, where: object) -> Bank:
    """Return a bank whose backbone is a file."""
    return configured(root, PARAMS.replace(DRAWN.format(0), f"file://{where}?{QUERY}"))


def drawn(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(fetch(DRAWN.format(seed)).state, path)
    return path


def test_a_file_is_recorded_without_its_path(tmp_path: Path) -> None:
    path = drawn(tmp_path / "far" / "vit.safetensors", 0)
    bank = from_file(tmp_path / "bank", path)
    assert fetch_backbone(bank).uri == f"file://vit.safetensors?{QUERY}"
    assert str(tmp_path) not in (bank.registry.root / "backbone.json").read_text()


def test_a_relative_file_is_one_of_the_bank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn(tmp_path / "bank" / "weights" / "vit.safetensors", 0)
    monkeypatch.chdir(tmp_path)
    record = fetch_backbone(from_file(tmp_path / "bank", "weights/vit.safetensors"))
    assert record.fingerprint == fetch_backbone(configured(tmp_path / "b", PARAMS)).fingerprint


def test_another_file_of_the_same_name_is_another_backbone(tmp_path: Path) -> None:
    paths = [drawn(tmp_path / str(seed) / "vit.safetensors", seed) for seed in (0, 1)]
    first, second = (fetch_backbone(from_file(tmp_path / "bank", path)) for path in paths)
    assert first.uri == second.uri
    assert first.fingerprint != second.fingerprint


def test_a_file_damaged_later_says_what_to_do_with_it(tmp_path: Path) -> None:
    path = drawn(tmp_path / "vit.safetensors", 0)
    bank = from_file(tmp_path / "bank", path)
    fetch_backbone(bank)
    path.write_bytes(b"not tensors")
    assert not backbone_is_ready(bank)
    with pytest.raises(IntegrityError, match="not a safetensors file") as caught:
        fetch_backbone(bank)
    assert "backbone.uri" in str(caught.value.fix)


def test_the_same_file_under_another_architecture_is_not_ready(tmp_path: Path) -> None:
    path = drawn(tmp_path / "vit.safetensors", 0)
    fetch_backbone(from_file(tmp_path / "bank", path))
    other = PARAMS.replace(DRAWN.format(0), f"file://{path}?{QUERY}&global_pool=avg")
    assert not backbone_is_ready(configured(tmp_path / "bank", other))


def test_a_fetched_file_is_not_needed_again(tmp_path: Path) -> None:
    path = drawn(tmp_path / "vit.safetensors", 0)
    bank = from_file(tmp_path / "bank", path)
    record = fetch_backbone(bank)
    path.unlink()
    assert fetch_backbone(bank) == record
    assert backbone_is_ready(bank)


@each_other_backbone
def test_a_backbone_is_ready_while_the_parameters_name_it(fresh: Bank, params: str) -> None:
    assert not backbone_is_ready(fresh)
    fetch_backbone(fresh)
    assert backbone_is_ready(fresh)
    assert not backbone_is_ready(configured(fresh.root, params))
    assert backbone_is_ready(configured(fresh.root, PARAMS))
    weights(fresh).unlink()
    assert not backbone_is_ready(fresh)
