"""Runs: what is logged can be read back, and how a run ended is never wrong."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from adapterbank.errors import AdapterBankError, ConflictError, InputError
from adapterbank.integrations.figures import confusion, png
from adapterbank.integrations.mlflow.runs import RunLogger, environment_tags, open_run
from adapterbank.integrations.mlflow.store import open_client


def _open(bank: Path, run_id: str | None = None, **params: str | float) -> RunLogger:
    return open_run(bank, experiment="digits", name="a run", params=params, run_id=run_id)


def test_a_finished_run_has_its_parameters_and_tags(bank: Path) -> None:
    with open_run(
        bank,
        experiment="digits",
        name="vapt on digits",
        params={"rank": 8, "lr": 0.005, "recipe": "default"},
        tags={"task": "digits"},
    ) as run:
        run.tags({"adapterbank.digest": "1f0c"})

    stored = open_client(bank).get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "vapt on digits"
    assert stored.data.params == {"rank": "8", "lr": "0.005", "recipe": "default"}
    assert stored.data.tags["task"] == "digits"
    assert stored.data.tags["adapterbank.digest"] == "1f0c"


def test_epochs_make_a_curve(bank: Path) -> None:
    with _open(bank) as run:
        for step in range(1, 4):
            run.epoch(step, {"train/loss": 1.0 / step, "val/accuracy": 0.25 * step})

    history = open_client(bank).get_metric_history(run.run_id, "train/loss")
    assert [(value.step, value.value) for value in history] == [(1, 1.0), (2, 0.5), (3, 1.0 / 3)]


def test_epochs_travel_together(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    log_batch = MlflowClient.log_batch

    def count(self: MlflowClient, run_id: str, **kinds: list[object]) -> object:
        sent.append(len(kinds.get("metrics", [])))
        return log_batch(self, run_id, **kinds)  # type: ignore[arg-type]

    with _open(bank) as run:
        monkeypatch.setattr(MlflowClient, "log_batch", count)
        for step in range(50):
            run.epoch(step, {"a": 0.0, "b": 1.0, "c": 2.0})
        run.flush()

    assert sent == [150]


def test_a_long_run_is_visible_before_it_ends(bank: Path) -> None:
    with _open(bank) as run:
        for step in range(1100):
            run.epoch(step, {"loss": float(step)})

        assert len(open_client(bank).get_metric_history(run.run_id, "loss")) >= 1000

    assert len(open_client(bank).get_metric_history(run.run_id, "loss")) == 1100


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("bad"), "FAILED"),
        (AdapterBankError("worse"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(1), "KILLED"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_run_ends_as_its_block_did(bank: Path, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), _open(bank) as run:  # noqa: PT012  # the block is the subject
        run.epoch(1, {"loss": 0.5})
        raise error

    stored = open_client(bank).get_run(run.run_id)
    assert stored.info.status == status
    assert stored.data.metrics == {"loss": 0.5}  # what was seen before it failed
    assert stored.data.tags["adapterbank.error"].startswith(type(error).__name__)


def test_a_store_that_fails_as_well_does_not_hide_the_error(bank: Path) -> None:
    run = _open(bank)
    open_client(bank).delete_run(run.run_id)

    with pytest.raises(ValueError, match="the news"), run:
        raise ValueError("the news")


def test_a_store_that_fails_in_a_good_run_is_reported(bank: Path) -> None:
    run = _open(bank)
    open_client(bank).delete_run(run.run_id)

    with pytest.raises(AdapterBankError, match="MLflow store"), run:
        run.epoch(1, {"loss": 0.5})


def test_a_later_stage_continues_the_run(bank: Path) -> None:
    with _open(bank, rank=8) as first:
        first.epoch(1, {"loss": 0.5})

    with _open(bank, run_id=first.run_id, rank=8, seed=1) as second:
        assert open_client(bank).get_run(first.run_id).info.status == "RUNNING"
        second.epoch(1, {"test/accuracy": 0.75})

    stored = open_client(bank).get_run(first.run_id)
    assert second.run_id == first.run_id
    assert stored.info.status == "FINISHED"
    assert stored.data.params == {"rank": "8", "seed": "1"}
    assert stored.data.metrics == {"loss": 0.5, "test/accuracy": 0.75}


def test_a_run_that_is_gone_is_continued_by_a_new_one(bank: Path) -> None:
    gone = "0" * 32

    with _open(bank, run_id=gone) as run:
        pass

    assert run.run_id != gone
    assert open_client(bank).get_run(run.run_id).data.tags["adapterbank.continues"] == gone


def test_other_parameters_for_the_same_run_are_refused(bank: Path) -> None:
    with _open(bank, rank=8) as run:
        pass

    with pytest.raises(ConflictError, match="rank=8, not 4"):
        _open(bank, run_id=run.run_id, rank=4)


def test_more_parameters_than_one_request_takes_are_logged(bank: Path) -> None:
    params = {f"p{i}": i for i in range(230)}
    with open_run(bank, experiment="digits", name="a run", params=params) as run:
        pass

    assert len(open_client(bank).get_run(run.run_id).data.params) == 230


def test_artifacts_come_back_as_they_went(bank: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "candidate"
    (adapter / "sub").mkdir(parents=True)
    (adapter / "adapter_model.safetensors").write_bytes(b"\x00\xff")
    (adapter / "sub" / "card.md").write_text("a card")
    picture = png(confusion(np.eye(2, dtype=np.int64), ("a", "b")))

    with _open(bank) as run:
        run.figure("confusion.png", picture)
        run.json("evaluation/metrics.json", {"b": 1, "a": [2]})
        run.files(adapter, "adapter")

    (stored,) = (bank / "mlartifacts" / "digits").glob("*/artifacts")
    assert (stored / "confusion.png").read_bytes() == picture
    assert json.loads((stored / "evaluation/metrics.json").read_text()) == {"a": [2], "b": 1}
    assert (stored / "adapter/adapter_model.safetensors").read_bytes() == b"\x00\xff"
    assert (stored / "adapter/sub/card.md").read_text() == "a card"


@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "a/../../x.png", ""])
def test_an_artifact_cannot_leave_its_run(bank: Path, name: str) -> None:
    with pytest.raises(InputError, match="relative path"), _open(bank) as run:
        run.figure(name, b"")


def test_the_whole_hash_of_the_data_is_kept(bank: Path) -> None:
    digest = "ab" * 32

    with _open(bank) as run:
        run.dataset("digits", digest, "embedded://digits")

    inputs = open_client(bank).get_run(run.run_id).inputs
    assert inputs is not None
    (entry,) = inputs.dataset_inputs
    assert entry.dataset.name == "digits"
    assert digest.startswith(entry.dataset.digest)
    assert json.loads(entry.dataset.source) == {"uri": "embedded://digits", "sha256": digest}
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "training")]


def test_the_environment_names_versions_but_neither_host_nor_user(bank: Path) -> None:
    tags = environment_tags(bank)

    assert tags["library.mlflow"]
    assert tags["adapterbank.python"] == platform.python_version()
    assert not [value for value in tags.values() if platform.node() in value]
    assert "mlflow.user" not in tags


def test_a_deleted_experiment_is_restored_with_its_runs(bank: Path) -> None:
    with _open(bank) as old:
        pass
    client = open_client(bank)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)

    with _open(bank) as new:
        pass
    assert client.get_experiment(experiment.experiment_id).lifecycle_stage == "active"
    infos = [client.get_run(run.run_id).info for run in (old, new)]
    assert {info.experiment_id for info in infos} == {experiment.experiment_id}
    assert {info.lifecycle_stage for info in infos} == {"active"}
