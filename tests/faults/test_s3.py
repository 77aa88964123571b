"""`push` and `pull` with a remote that speaks S3: whole, gone in the middle, and damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapterbank.__main__ import main
from adapterbank.errors import AdapterBankError, IntegrityError
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from adapterbank.sync.remote import pull, push
from tests import s3
from tests.dvc_samples import clone, copy, make_dvc_bank

pytestmark = pytest.mark.filterwarnings(
    # s3fs, of the requests that it gave up with the one that failed.
    "ignore:coroutine 'S3FileSystem:RuntimeWarning"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a committed bank that nobody changes."""
    root = tmp_path_factory.mktemp("made") / "a bänk"
    make_dvc_bank(root)
    return root


@pytest.fixture
def store() -> Iterator[s3.S3]:
    """Return an empty bucket."""
    with s3.serve() as server:
        yield server


@pytest.fixture
def registry(made: Path, tmp_path: Path, store: s3.S3) -> Registry:
    """Return a bank whose remote is the bucket."""
    registry = copy(made, tmp_path / "own")
    store.use(registry.root.parent)
    return registry


@pytest.fixture
def theirs(registry: Registry, tmp_path: Path) -> Registry:
    """Return an empty clone."""
    return clone(registry.root.parent, tmp_path / "clone")


def names(versions: tuple[Version, ...]) -> list[str]:
    return [str(version) for version in versions]


def present(registry: Registry) -> list[str]:
    """Name the versions that have a folder; none of them may be half."""
    found = [
        version
        for task in registry.tasks()
        for version in registry.versions(task)
        if version.path.exists()
    ]
    assert all(registry.read(version) for version in found)
    return [str(version) for version in found]


def md5_of(registry: Registry, ref: str, name: str) -> str:
    data = registry.read(registry.resolve(ref))[name]
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def test_a_version_then_a_task_then_everything_go_through_a_bucket(
    registry: Registry, theirs: Registry
) -> None:
    assert names(push(registry, "digits@1").new) == ["digits@1"]
    assert names(pull(theirs, "digits@1").new) == ["digits@1"]
    assert present(theirs) == ["digits@1"]
    assert theirs.backbone_weights.read_bytes() == registry.backbone_weights.read_bytes()
    assert names(pull(theirs, "digits").new) == ["digits@2"]

    assert names(push(registry).new) == ["textures@1"]
    assert names(pull(theirs).new) == ["textures@1"]

    assert present(theirs) == present(registry) == ["digits@1", "digits@2", "textures@1"]
    for task in registry.tasks():
        for ours, other in zip(registry.versions(task), theirs.versions(task), strict=True):
            assert (ours.digest, registry.read(ours)) == (other.digest, theirs.read(other))
    assert theirs.verify() == ()
    assert (push(registry).new, pull(theirs).new) == ((), ())


def test_a_pull_whose_server_goes_away_shows_nothing_half_and_is_finished_by_another(
    registry: Registry, theirs: Registry, store: s3.S3, capsys: pytest.CaptureFixture[str]
) -> None:
    push(registry)
    place = ["--bank", str(theirs.root.parent), "--json"]
    for requests in (0, 5, 9):
        store.go_away_after(requests)
        assert main(["pull", *place]) == 1
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert "DVC" in said.err
        assert present(theirs) == []
        assert not theirs.backbone_weights.exists()
        assert {problem.kind for problem in theirs.verify()} == {"absent"}  # not half
    store.come_back()
    assert names(pull(theirs).new) == ["digits@1", "digits@2", "textures@1"]
    assert present(theirs) == present(registry)
    assert theirs.verify() == ()


def test_a_push_whose_server_goes_away_is_finished_by_another(
    registry: Registry, theirs: Registry, store: s3.S3
) -> None:
    for requests in (0, 6):
        store.go_away_after(requests)
        with pytest.raises(AdapterBankError, match="DVC"):
            push(registry)
    store.come_back()
    assert 0 < len(store.keys()) < 20  # some of it came
    push(registry)
    assert names(pull(theirs).new) == ["digits@1", "digits@2", "textures@1"]
    assert theirs.verify() == ()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "manifest.json"])
def test_a_damaged_object_is_refused_and_the_rest_comes(
    registry: Registry,
    theirs: Registry,
    store: s3.S3,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    push(registry)
    md5 = md5_of(registry, "digits@2", name)
    good = store.replace(md5, b"not what was pushed")
    place = ["--bank", str(theirs.root.parent)]
    for _ in range(2):  # it must not be believed because it came once
        assert main(["pull", *place]) == 4
        said = " ".join(capsys.readouterr().err.split())
        assert f"{name} of digits@2" in said
        assert present(theirs) == ["digits@1", "textures@1"]

    store.replace(md5, good)
    assert names(pull(theirs).new) == ["digits@2"]
    assert theirs.verify() == ()


def test_a_damaged_object_leaves_what_a_registry_has(registry: Registry, store: s3.S3) -> None:
    push(registry)
    sound = registry.resolve("digits@2")
    store.replace(md5_of(registry, "digits@2", "README.md"), b"another card")
    assert pull(registry, "digits@2").new == ()
    assert registry.read(sound)
    weights = registry.backbone_weights
    store.replace(hashlib.md5(weights.read_bytes(), usedforsecurity=False).hexdigest(), b"others")
    theirs = clone(registry.root.parent, registry.root.parent.parent / "clone")
    with pytest.raises(IntegrityError, match=r"backbone/model\.safetensors"):
        pull(theirs, "digits@1")
    assert not theirs.backbone_weights.exists()
