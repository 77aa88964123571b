"""One behaviour, whether a search keeps its state in a folder, under a URI, or in a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from adapterbank.errors import ConflictError, InputError
from adapterbank.search.ledger import Ledger
from adapterbank.search.storage import Storage
from tests.search_trials import IDENTITY, ended

BUCKET = "searches"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Return host and port of an S3 that has one bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        server.start()
        host, port = server.get_host_and_port()
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket=BUCKET)
        try:
            yield f"{host}:{port}"
        finally:
            server.stop()


@pytest.fixture(params=["folder", "file", "query", "environment"])
def storage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Storage:
    """Return a new storage of each kind."""
    kind: str = request.param
    if kind == "folder":
        return Storage(tmp_path / "a folder")
    if kind == "file":
        return Storage(f"file://{tmp_path}/a%20folder")
    address: str = request.getfixturevalue("s3")
    prefix = f"s3://{BUCKET}/{tmp_path.name}"
    if kind == "environment":
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
        return Storage(prefix)
    return Storage(f"{prefix}?endpoint_override={address}&scheme=http&region=us-east-1")


def test_what_is_written_is_read(storage: Storage) -> None:
    storage.check()
    assert storage.read("a.json") is None
    storage.write("a.json", b"one")
    storage.write("a.json", b"two")
    storage.write("deep/er/b", bytes(range(256)) * 5000)
    assert storage.read("a.json") == b"two"
    assert storage.read("deep/er/b") == bytes(range(256)) * 5000
    assert storage.read("deep/none") is None


def test_names_are_the_files_of_one_folder_sorted(storage: Storage) -> None:
    assert storage.names("trials") == ()
    for name in ("00010.json", "00002.json", ".tmp-00003.json-1"):
        storage.write(f"trials/{name}", b"x")
    storage.write("other/z", b"x")
    assert storage.names("trials") == ("00002.json", "00010.json")
    storage.check()
    assert [name for name in storage.names("") if "probe" in name] == []


def test_a_folder_inside_is_apart_from_its_neighbours(storage: Storage) -> None:
    one, two = storage.inside("one"), storage.inside("two")
    one.write("a", b"1")
    two.write("a", b"2")
    assert (one.read("a"), two.read("a"), storage.read("one/a")) == (b"1", b"2", b"1")
    one.delete("a")
    assert (one.read("a"), two.read("a")) == (None, b"2")


def test_deleting_takes_files_and_folders_and_minds_nothing_missing(storage: Storage) -> None:
    storage.write("keep", b"1")
    storage.write("trials/1", b"1")
    storage.write("trials/deep/2", b"1")
    storage.write("file", b"1")
    for name in ("trials", "file", "none", "no/such/folder"):
        storage.delete(name)
    assert storage.names("trials") == ()
    assert storage.read("trials/deep/2") is None
    assert storage.read("file") is None
    assert storage.read("keep") == b"1"


def test_a_worker_finds_by_its_uri_what_the_driver_wrote(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = storage.inside("colours")
    inside.write("a", b"1")
    monkeypatch.chdir(tmp_path)
    assert Storage(inside.uri).read("a") == b"1"


def test_a_search_goes_on_from_it(storage: Storage) -> None:
    book = Ledger(storage.inside("colours"), "colours", IDENTITY)
    book.note()
    book.put(ended(0, [10]))
    book.put(ended(1, [], state="started", latency=None))
    again = Ledger(storage.inside("colours"), "colours", IDENTITY)
    assert again.trials == book.trials
    Ledger.clear(again.storage)
    assert Ledger(storage.inside("colours"), "colours", "2" * 64).trials == {}


def test_a_relative_folder_is_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = Storage("relative")
    storage.write("a", b"1")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert storage.read("a") == b"1"
    assert Storage(storage.uri).read("a") == b"1"


def test_a_link_in_a_shared_storage_is_not_followed_and_not_emptied(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    storage = Storage(tmp_path / "storage")
    storage.write("a", b"1")
    (tmp_path / "storage" / "trials").symlink_to(outside)
    storage.delete("trials")
    assert (outside / "secret").read_text() == "s"
    assert not (tmp_path / "storage" / "trials").is_symlink()


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "file://",
        "file://elsewhere/folder",
        "ftp://host/folder",
        "s3://",
        "s3:///prefix",
        "s3://bucket/prefix?strange=1",
        "made-up://x",
        "abfss://x",
    ],
)
def test_what_names_no_storage_is_refused_with_examples(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        Storage(uri)
    assert caught.value.exit_code == 2
    assert f"storage {uri}" in caught.value.message
    assert caught.value.fix == "use a folder, file://… or s3://bucket/prefix"


def unusable(tmp_path: Path) -> Iterator[str]:
    file = tmp_path / "file"
    file.write_text("no folder")
    yield str(file)
    yield f"{file}/below"
    yield "/proc/nowhere"


def test_one_that_cannot_be_written_is_refused_naming_the_option(tmp_path: Path) -> None:
    for uri in unusable(tmp_path):
        refused(Storage(uri).inside("colours"))


def test_a_bucket_that_is_not_there_is_refused_naming_the_option(s3: str) -> None:
    uri = f"s3://nobodys/x?endpoint_override={s3}&scheme=http&region=us-east-1"
    refused(Storage(uri))


def refused(storage: Storage) -> None:
    with pytest.raises(InputError) as caught:
        storage.check()
    assert storage.uri in caught.value.message
    assert caught.value.fix == "name one that can be written with --storage"


def test_a_folder_is_one_driver_s_at_a_time_and_free_again_after_it(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "searches")
    with storage.lock():
        with (
            pytest.raises(ConflictError, match="a search runs in") as caught,
            Storage(tmp_path / "searches").lock(),
        ):
            pytest.fail("two drivers of one search")
        assert caught.value.exit_code == 5
        with storage.inside("other").lock():
            pass
    with Storage(tmp_path / "searches").lock():
        assert storage.names("trials") == ()
