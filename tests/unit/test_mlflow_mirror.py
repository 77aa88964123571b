"""The mirror: MLflow shows what the registry says, however often it is told."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from adapterbank.errors import InputError, UnknownName
from adapterbank.integrations.mlflow.mirror import (
    MirroredModel,
    lookup,
    mirror_alias,
    mirror_version,
    source_uri,
)
from adapterbank.integrations.mlflow.runs import open_run
from adapterbank.integrations.mlflow.store import open_client


def _digest(number: int) -> str:
    return hashlib.sha256(bytes([number])).hexdigest()


def _mirror(bank: Path, number: int, task: str = "dtd", run_id: str | None = None) -> int:
    digest = _digest(number)
    return mirror_version(bank, task, number, digest, digest[:32], {"backbone": "81c2"}, run_id)


def test_a_version_is_shown_with_its_links(bank: Path) -> None:
    with open_run(bank, experiment="dtd", name="run", params={}) as run:
        pass

    number = _mirror(bank, 1, run_id=run.run_id)

    (found,) = lookup(bank, "dtd").versions
    assert (found.number, found.version, found.digest) == (number, 1, _digest(1))
    assert found.source == f"dvc://md5/{_digest(1)[:32]}"
    assert found.run_id == run.run_id
    assert dict(found.tags)["backbone"] == "81c2"


def test_mirroring_again_adds_nothing(bank: Path) -> None:
    assert _mirror(bank, 1) == _mirror(bank, 1)
    assert len(lookup(bank, "dtd").versions) == 1


def test_a_mended_tag_is_mended(bank: Path) -> None:
    number = _mirror(bank, 1)
    client = open_client(bank)
    client.set_model_version_tag("dtd", str(number), "backbone", "edited by hand")
    client.delete_model_version_tag("dtd", str(number), "adapterbank.version")

    _mirror(bank, 1)

    (found,) = lookup(bank, "dtd").versions
    assert found.version == 1
    assert dict(found.tags)["backbone"] == "81c2"


def test_mlflow_may_count_differently(bank: Path) -> None:
    """The digest links, so versions mirrored out of order are still told apart."""
    second, first = _mirror(bank, 2), _mirror(bank, 1)

    mirror_alias(bank, "dtd", "champion", _digest(1))

    assert (second, first) == (1, 2)
    found = lookup(bank, "dtd").aliased("champion")
    assert found is not None
    assert (found.number, found.version) == (2, 1)


def test_versions_made_by_others_are_left_alone(bank: Path) -> None:
    client = open_client(bank)
    client.create_registered_model("dtd")
    client.create_model_version("dtd", source="s3://somewhere")

    _mirror(bank, 1)

    theirs, ours = lookup(bank, "dtd").versions
    assert (theirs.version, theirs.digest, theirs.source) == (None, None, "s3://somewhere")
    assert ours.version == 1


def test_a_run_mlflow_does_not_know_is_left_out(bank: Path) -> None:
    _mirror(bank, 1, run_id="0" * 32)

    assert lookup(bank, "dtd").versions[0].run_id is None


def test_an_alias_moves_and_goes(bank: Path) -> None:
    _mirror(bank, 1)
    _mirror(bank, 2)

    mirror_alias(bank, "dtd", "champion", _digest(1))
    mirror_alias(bank, "dtd", "previous", _digest(1))
    mirror_alias(bank, "dtd", "champion", _digest(2))
    mirror_alias(bank, "dtd", "previous", None)

    aliases = lookup(bank, "dtd").aliases
    assert [(alias, found.version) for alias, found in aliases] == [("champion", 2)]


def test_an_alias_that_stands_right_is_not_written(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _mirror(bank, 1)
    mirror_alias(bank, "dtd", "champion", _digest(1))

    def fail(*_: object) -> None:
        pytest.fail("written again")

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", fail)
    mirror_alias(bank, "dtd", "champion", _digest(1))


@pytest.mark.parametrize("task", ["dtd", "never-seen"])
def test_taking_away_an_alias_that_is_not_there_does_nothing(bank: Path, task: str) -> None:
    _mirror(bank, 1)

    mirror_alias(bank, task, "champion", None)

    assert lookup(bank, task).aliases == ()


def test_an_alias_on_a_version_mlflow_lacks_is_an_error(bank: Path) -> None:
    _mirror(bank, 1)

    with pytest.raises(UnknownName, match="MLflow version"):
        mirror_alias(bank, "dtd", "champion", _digest(2))


@pytest.mark.parametrize("alias", ["latest", "v1", "v12", "Champion", "a b", ""])
def test_names_that_mlflow_keeps_for_itself_are_refused(bank: Path, alias: str) -> None:
    with pytest.raises(InputError, match="alias"):
        mirror_alias(bank, "dtd", alias, _digest(1))


def test_a_lost_race_for_an_alias_is_tried_again(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _mirror(bank, 1)
    attempts: list[str] = []
    real = MlflowClient.set_registered_model_alias

    def lose_once(self: MlflowClient, name: str, alias: str, version: str) -> None:
        attempts.append(alias)
        if len(attempts) == 1:
            raise MlflowException("UNIQUE constraint failed: registered_model_aliases")
        real(self, name, alias, version)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", lose_once)
    mirror_alias(bank, "dtd", "champion", _digest(1))

    assert attempts == ["champion", "champion"]
    assert lookup(bank, "dtd").aliased("champion") is not None


def test_a_task_mlflow_never_heard_of_is_empty(bank: Path) -> None:
    assert lookup(bank, "dtd") == MirroredModel(task="dtd", versions=(), aliases=())


def test_looking_does_not_make_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    assert lookup(tmp_path, "dtd").versions == ()
    assert list(tmp_path.iterdir()) == []


def test_tasks_do_not_see_one_another(bank: Path) -> None:
    _mirror(bank, 1, task="dtd")
    _mirror(bank, 1, task="pets")

    assert len(lookup(bank, "dtd").versions) == 1
    assert lookup(bank, "pets").of(_digest(1)) is not None
    assert lookup(bank, "pets").of(_digest(2)) is None


@pytest.mark.parametrize("md5", ["", "../../etc/passwd", "AB" * 16, "ab" * 32])
def test_only_a_hash_can_be_a_source(md5: str) -> None:
    with pytest.raises(InputError, match="md5"):
        source_uri(md5)


@pytest.mark.parametrize("task", ["../x", "a'b", "", "A"])
def test_a_task_name_cannot_carry_a_query(bank: Path, task: str) -> None:
    with pytest.raises(InputError, match="not a task name"):
        lookup(bank, task)


def test_threads_that_mirror_one_version_make_one(bank: Path) -> None:
    numbers: list[int] = []

    def mirror() -> None:
        numbers.append(_mirror(bank, 1))
        mirror_alias(bank, "dtd", "champion", _digest(1))

    threads = [threading.Thread(target=mirror) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert numbers == [1] * 6
    model = lookup(bank, "dtd")
    assert len(model.versions) == 1
    assert model.aliased("champion") == model.versions[0]
