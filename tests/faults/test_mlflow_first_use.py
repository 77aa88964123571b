"""Eight processes meet a tracking store that does not exist: all succeed, or all are killed."""

from __future__ import annotations

import multiprocessing
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from adapterbank.integrations.mlflow.mirror import lookup
from adapterbank.integrations.mlflow.store import open_client
from tests.first_use import TASK, digest_of, use_store

pytestmark = pytest.mark.timeout(240)

PROCESSES = 8
_PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Return what starts processes from one that has imported MLflow, and has no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.first_use"])
    return context


@pytest.fixture(autouse=True)
def own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "bank"
    folder.mkdir()
    yield folder
    assert {path.name for path in folder.iterdir()} <= {
        "mlflow.db", "mlflow.db-wal", "mlflow.db-shm", "mlflow.db.lock", "mlartifacts",
    }  # fmt: skip


def start(context: ForkServerContext, root: Path, versions: Sequence[int]) -> list[BaseProcess]:
    """Start one process a version; they begin together when all are ready."""
    barrier = context.Barrier(len(versions) + 1)
    made: list[BaseProcess] = []
    for version in versions:
        made.append(context.Process(target=use_store, args=(root, version, barrier)))
        made[-1].start()
    barrier.wait(_PATIENCE_S)
    return made


def finish(made: list[BaseProcess]) -> list[int | None]:
    for process in made:
        process.join(_PATIENCE_S)
    return [process.exitcode for process in made]


def sound(root: Path) -> bool:
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def finished_runs(root: Path) -> list[str]:
    client = open_client(root)
    experiment = client.get_experiment_by_name(TASK)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], filter_string="status = 'FINISHED'")
    return [run.info.run_id for run in runs]


def test_all_of_them_log_and_register(processes: ForkServerContext, root: Path) -> None:
    assert finish(start(processes, root, range(1, PROCESSES + 1))) == [0] * PROCESSES
    model = lookup(root, TASK)
    assert {shown.version for shown in model.versions} == set(range(1, PROCESSES + 1))
    assert {shown.digest for shown in model.versions} == {
        digest_of(version) for version in range(1, PROCESSES + 1)
    }
    assert len(model.versions) == PROCESSES
    assert {shown.run_id for shown in model.versions} == set(finished_runs(root))
    assert len(finished_runs(root)) == PROCESSES
    assert [alias for alias, _ in model.aliases] == ["champion"]
    assert len(list(root.glob("mlartifacts/**/metrics.json"))) == PROCESSES
    assert sound(root)

    assert finish(start(processes, root, [9] * PROCESSES)) == [0] * PROCESSES
    assert [shown.version for shown in lookup(root, TASK).versions].count(9) == 1


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "the lock is taken": lambda root: (root / "mlflow.db.lock").exists(),
    "the tables begin": lambda root: size(root / "mlflow.db.init") > 0,
    "half the tables are there": lambda root: size(root / "mlflow.db.init") > 200_000,
    "the store has its name": lambda root: (root / "mlflow.db").exists(),
    "runs are being written": lambda root: any(root.glob("mlartifacts/**/metrics.json")),
}


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("moment", MOMENTS)
def test_all_of_them_killed_leave_a_store_that_works(
    processes: ForkServerContext, root: Path, moment: str
) -> None:
    made = start(processes, root, range(1, PROCESSES + 1))
    deadline = time.monotonic() + _PATIENCE_S
    while not MOMENTS[moment](root):
        assert time.monotonic() < deadline, moment
        time.sleep(0.001)
    for process in made:
        process.kill()
    codes = finish(made)
    assert -signal.SIGKILL in codes
    assert set(codes) <= {0, -signal.SIGKILL}

    assert finish(start(processes, root, [9])) == [0]

    shown = lookup(root, TASK).aliased("champion")
    assert shown is not None
    assert shown.version == 9
    assert shown.run_id in finished_runs(root)
    assert sound(root)
