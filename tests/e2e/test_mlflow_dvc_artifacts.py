"""MLflow downloads a version by its alias, from DVC or the registry, every byte checked."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from adapterbank.integrations.mlflow.artifacts import MLMODEL, DvcArtifactRepository
from adapterbank.registry.store import Registry
from tests.bank_samples import damage
from tests.dvc_samples import dvc, make_dvc_bank
from tests.installed import ENTRY_POINTS, run_installed

EXTRA = {MLMODEL, "registered_model_meta"}
DOWNLOAD = """\
import sys, mlflow
print(mlflow.artifacts.download_artifacts(sys.argv[1], dst_path=sys.argv[2]))
"""


def address(registry: Registry, ref: str) -> str:
    data = registry.read(registry.resolve(ref))["manifest.json"]
    return f"dvc://md5/{hashlib.md5(data, usedforsecurity=False).hexdigest()}"


def read(folder: Path) -> dict[str, bytes]:
    """Return the files of the version, without what MLflow loads it by or notes beside it."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in EXTRA}


def download(uri: str, name: str, target: Path) -> Path:
    """Download as MLflow does; no name means everything."""
    target.mkdir(exist_ok=True)
    fetch = DvcArtifactRepository(uri).download_artifacts
    return Path(fetch(name, str(target)))  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a committed bank with a full cache and an empty remote."""
    root = tmp_path_factory.mktemp("made") / "bank"
    make_dvc_bank(root)
    return root


@pytest.fixture
def dvc_bank(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    root = Path(shutil.copytree(made, tmp_path / "bank", symlinks=True))
    monkeypatch.setenv("ADAPTERBANK_BANK", str(root / "work"))  # a folder in it will do
    (root / "work").mkdir(exist_ok=True)
    return Registry.open(root / "registry")


def test_the_package_declares_the_scheme() -> None:
    declared = ENTRY_POINTS["mlflow.artifact_repository"]["dvc"]
    assert declared == f"{DvcArtifactRepository.__module__}:{DvcArtifactRepository.__name__}"


@pytest.mark.slow
def test_an_alias_is_downloaded_in_another_process(bank: Path, tmp_path: Path) -> None:
    """A bank without DVC: the bytes are the registry's own."""
    target = tmp_path / "target"
    target.mkdir()
    said = run_installed(
        DOWNLOAD, "models:/colours@champion", target, folder=bank / "work",
        tracking=f"sqlite:///{bank / 'mlflow.db'}", installed=tmp_path / "installed",
    )  # fmt: skip
    assert Path(said.splitlines()[-1]) == target
    registry = Registry.open(bank / "registry")
    assert read(target) == registry.read(registry.resolve("colours@champion"))


@pytest.mark.parametrize("source", ["cache", "remote", "registry"])
def test_all_files_come_from_wherever_they_are(
    dvc_bank: Registry, tmp_path: Path, source: str
) -> None:
    root, uri = dvc_bank.root.parent, address(dvc_bank, "digits@2")
    expected = dvc_bank.read(dvc_bank.resolve("digits@2"))
    if source == "remote":
        dvc(root, "push", "--quiet")
    if source != "cache":
        shutil.rmtree(root / ".dvc" / "cache")
    if source != "registry":
        shutil.rmtree(root / "registry" / "adapters")
    listed = {one.path: one.file_size for one in DvcArtifactRepository(uri).list_artifacts()}
    made = listed.pop(MLMODEL)
    assert listed == {name: len(data) for name, data in expected.items()}
    assert read(download(uri, "", tmp_path / "target")) == expected
    assert (tmp_path / "target" / MLMODEL).stat().st_size == made


def test_altered_bytes_are_not_handed_out(dvc_bank: Registry, tmp_path: Path) -> None:
    root, uri = dvc_bank.root.parent, address(dvc_bank, "digits@2")
    name = "adapter_model.safetensors"
    data = dvc_bank.read(dvc_bank.resolve("digits@2"))[name]
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    cached = root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    cached.chmod(0o644)
    damage(cached)
    # Another place has it whole.
    assert download(uri, name, tmp_path / "target").read_bytes() == data
    damage(dvc_bank.resolve("digits@2").path / name)
    with pytest.raises(MlflowException, match="MD5"):
        download(uri, name, tmp_path / "other")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("dvc://md5/" + "0" * 32, "neither the DVC cache"),
        ("dvc://md5/../etc", "is not dvc://md5/"),
        ("dvc://sha256/" + "0" * 32, "is not dvc://md5/"),
    ],
)
def test_an_address_of_nothing_is_refused(dvc_bank: Registry, uri: str, reason: str) -> None:
    assert dvc_bank.tasks()
    with pytest.raises(MlflowException, match=reason):
        DvcArtifactRepository(uri)


def test_nothing_is_written_and_no_other_file_is_read(dvc_bank: Registry, tmp_path: Path) -> None:
    repository = DvcArtifactRepository(address(dvc_bank, "digits@1"))
    with pytest.raises(MlflowException, match="immutable"):
        repository.log_artifact(str(tmp_path / "x"))
    with pytest.raises(MlflowException, match="has no file"):
        repository._download_file("../backbone.json", str(tmp_path / "x"))  # noqa: SLF001
    assert not (tmp_path / "x").exists()


def test_outside_a_bank_the_answer_says_so(
    dvc_bank: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERBANK_BANK", str(tmp_path))
    with pytest.raises(MlflowException, match="not inside a bank"):
        DvcArtifactRepository(address(dvc_bank, "digits@1"))
