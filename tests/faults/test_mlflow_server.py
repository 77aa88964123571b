"""A bank whose MLflow is a server: runs, mirror, repair, download and serving go through it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from adapterbank.__main__ import main
from adapterbank.inference.predictor import Predictor
from adapterbank.integrations.mlflow.mirror import lookup
from adapterbank.registry.store import Registry
from tests.bank_samples import damage
from tests.installed import run_installed
from tests.mlflow_server import MlflowServer
from tests.trained_bank import train_bank

pytestmark = pytest.mark.timeout(240)

SERVE = """\
import json, sys
import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

model = mlflow.pyfunc.load_model("models:/colours@champion")
table = pd.DataFrame({"image": sys.argv[1:]})
refused = None
try:
    model.predict(table, params={"task": "pets"})
except MlflowException as error:
    refused = [error.error_code, str(error)]
rows = model.predict(table, params={"top_k": 2}).to_dict(orient="records")
print(json.dumps({"rows": rows, "refused": refused}))
"""
DOWNLOAD = """\
import sys, mlflow
print(mlflow.artifacts.download_artifacts("models:/colours@champion", dst_path=sys.argv[1]))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    started = MlflowServer(tmp_path_factory.mktemp("mlflow") / "server").start()
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def built(server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bank whose runs and versions have been the server's from the start."""
    root = tmp_path_factory.mktemp("built") / "bank"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server.url)
        train_bank(root)
    return root


@pytest.fixture
def bank(
    server: MlflowServer, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a bank of the test's own that the server shows as it is."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.delenv("ADAPTERBANK_BANK", raising=False)
    root = Path(shutil.copytree(built, tmp_path / "bank"))
    monkeypatch.chdir(root)
    model = lookup(root, "colours")
    if [shown.version for shown in model.versions] != [1, 2] or aliases(root) != {"champion": 1}:
        MlflowClient(server.url).delete_registered_model("colours")
        assert main(["sync"]) == 0
    return root


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(capsys)


class Runner:
    """Runs a command that answers in JSON."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str, code: int = 0) -> dict[str, Any]:
        self._capsys.readouterr()
        got = main([*words, "--json"])
        said = self._capsys.readouterr()
        assert got == code, said
        answer: dict[str, Any] = json.loads(said.out)
        return answer

    def drifts(self) -> list[str]:
        """What ``status`` names."""
        return [one["message"] for one in self("status", code=1)["discrepancies"]]


def aliases(bank: Path) -> dict[str, int | None]:
    """Where MLflow's aliases stand, by our numbers."""
    return {alias: shown.version for alias, shown in lookup(bank, "colours").aliases}


def numbered(bank: Path, version: int) -> str:
    """MLflow's number of one of our versions."""
    shown = lookup(bank, "colours").versions
    return str(next(one.number for one in shown if one.version == version))


def test_training_evaluation_and_registration_are_on_the_server(
    server: MlflowServer, built: Path
) -> None:
    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name("colours")
    assert experiment is not None
    assert experiment.artifact_location.startswith("mlflow-artifacts:")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * len(runs)
    assert len(runs) == 2
    for found in runs:
        assert {"train/loss", "final/test_accuracy"} <= found.data.metrics.keys()
        names = {one.path for one in client.list_artifacts(found.info.run_id)}
        assert {"confusion.png", "metrics.json", "adapter"} <= names
    assert len(list(server.artifacts.rglob("confusion.png"))) == 2
    assert not list(built.glob("mlflow.db"))
    assert not (built / "mlartifacts").exists()


def test_what_the_pipeline_registers_is_linked_to_its_run(bank: Path, server: MlflowServer) -> None:
    client = MlflowClient(server.url)
    client.delete_registered_model("colours")
    assert main(["stage", "register", "colours"]) == 0
    (shown,) = client.search_model_versions("name = 'colours'")
    run = json.loads((bank / "work" / "colours" / "run.json").read_text())["run_id"]
    assert shown.run_id == run
    assert client.get_run(run).info.status == "FINISHED"


def test_promotion_and_rollback_are_shown(bank: Path, run: Runner) -> None:
    assert run("status") == {"ok": True, "discrepancies": []}
    assert run("promote", "colours@2")["mirror"] is None
    assert aliases(bank) == {"champion": 2, "previous": 1}
    assert run("rollback", "colours")["mirror"] is None
    assert aliases(bank)["champion"] == 1
    assert run("status")["ok"]


def test_a_model_deleted_on_the_server_is_rebuilt(
    bank: Path, run: Runner, server: MlflowServer
) -> None:
    before = lookup(bank, "colours")
    MlflowClient(server.url).delete_registered_model("colours")
    assert run.drifts() == [
        "MLflow does not show colours@1",
        "MLflow does not show colours@2",
        "colours@champion is missing in MLflow, version 1 in the registry",
    ]
    assert run("sync")["ok"]
    after = lookup(bank, "colours")
    for old, new in zip(before.versions, after.versions, strict=True):
        assert (old.version, old.digest, old.source, old.tags) == (
            new.version, new.digest, new.source, new.tags,
        )  # fmt: skip
    assert aliases(bank) == {"champion": 1}
    assert run("status")["ok"]
    assert run("sync")["done"] == []


def test_an_alias_moved_on_the_server_is_adopted_by_the_checks_of_promote(
    bank: Path, run: Runner, server: MlflowServer
) -> None:
    client = MlflowClient(server.url)
    client.set_registered_model_alias("colours", "champion", numbered(bank, 2))
    registry = Registry.open(bank / "registry")
    weights = registry.resolve("colours@2").path / "adapter_model.safetensors"
    whole = weights.read_bytes()
    damage(weights)
    assert run("sync", "--adopt", code=4)["failed"]
    assert registry.aliases("colours") == {"champion": 1}
    weights.write_bytes(whole)
    client.set_registered_model_alias("colours", "champion", numbered(bank, 2))
    assert run("sync", "--adopt")["ok"]
    assert registry.aliases("colours") == {"champion": 2, "previous": 1}
    assert aliases(bank) == {"champion": 2, "previous": 1}


def test_another_process_downloads_and_serves_the_champion(
    bank: Path, server: MlflowServer, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    where = {"folder": bank / "work", "tracking": server.url}
    run_installed(DOWNLOAD, target, installed=tmp_path / "one", **where)  # type: ignore[arg-type]
    registry = Registry.open(bank / "registry")
    version = registry.resolve("colours@champion")
    for name, data in registry.read(version).items():
        assert (target / name).read_bytes() == data

    images = [str(path) for path in sorted(bank.glob("photos/*/0[0-3].png"))]
    said = run_installed(SERVE, *images, installed=tmp_path / "two", **where)  # type: ignore[arg-type]
    answer = json.loads(said.splitlines()[-1])
    expected = Predictor(registry).predict(images, task="colours@champion", top_k=2)
    assert answer["rows"] == [
        {
            "image": one.image, "task": "colours", "version": 1, "digest": version.digest,
            "label": one.label, "probability": one.probability,
            "top_k": [list(pair) for pair in one.top_k],
        }
        for one in expected
    ]  # fmt: skip
    assert len(answer["rows"]) == 12
    code, message = answer["refused"]
    assert code == "INVALID_PARAMETER_VALUE"
    assert "not for 'pets'" in message


def test_with_the_server_down_a_promotion_stands_and_is_shown_later(
    bank: Path, run: Runner, server: MlflowServer
) -> None:
    server.stop()
    try:
        moved = run("promote", "colours@2")
        assert moved["moved"]
        assert server.url in moved["mirror"]
        (drift,) = run("status", code=1)["discrepancies"]
        assert server.url in drift["message"]
        assert "MLFLOW_TRACKING_URI" in drift["fix"]
        assert run("sync", code=1)["failed"]
    finally:
        server.start()
    assert run.drifts() == [
        "colours@champion is version 1 in MLflow, version 2 in the registry",
        "colours@previous is missing in MLflow, version 1 in the registry",
    ]
    assert run("sync")["ok"]
    assert aliases(bank) == {"champion": 2, "previous": 1}
    assert run("status")["ok"]
