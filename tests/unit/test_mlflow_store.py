"""The tracking store: made once, by anyone, in the bank, and it moves with the bank."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from adapterbank.errors import AdapterBankError, FetchError, InputError
from adapterbank.integrations.mlflow.mirror import (
    lookup,
    mirror_alias,
    mirror_version,
    other_models,
)
from adapterbank.integrations.mlflow.run_files import open_run_files
from adapterbank.integrations.mlflow.runs import open_run
from adapterbank.integrations.mlflow.store import (
    DATABASE,
    artifact_location,
    displaced_experiments,
    ensure_store,
    open_client,
    reported,
    store_exists,
    tracking_uri,
)
from tests.installed import run_installed


def test_the_address_is_absolute_and_in_the_bank(bank: Path) -> None:
    assert tracking_uri(bank) == f"sqlite:///{bank.resolve()}/mlflow.db"


def test_a_relative_root_gives_the_same_address(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bank.parent)

    assert tracking_uri(Path(bank.name)) == tracking_uri(bank)


def test_the_user_s_server_wins_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    assert ensure_store(tmp_path) == "http://127.0.0.1:9"
    assert artifact_location(tmp_path, "digits") is None
    assert store_exists(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_missing_until_it_is_made(tmp_path: Path, bank: Path) -> None:
    assert not store_exists(tmp_path)
    assert store_exists(bank)


@pytest.mark.parametrize("name", ["with space", "bänk", "100%", "a#b&c=d"])
def test_a_bank_may_have_any_name(
    tmp_path: Path, name: str, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / name
    bank.rename(root)
    monkeypatch.chdir(tmp_path)  # a wrongly quoted address would leave a file here

    client = open_client(root)
    experiment = client.create_experiment("digits", artifact_location(root, "digits"))
    run = client.create_run(experiment)
    client.log_dict(run.info.run_id, {"a": 1}, "a.json")

    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(list((root / "mlartifacts").rglob("a.json"))) == 1


@pytest.mark.parametrize("name", ["per%20cent", "what?"])
def test_a_name_that_no_address_can_carry_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / name).mkdir()

    with pytest.raises(InputError, match="cannot address"):
        ensure_store(tmp_path / name)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert ensure_store(tmp_path / name) == "http://127.0.0.1:9"


def test_the_bank_s_own_address_in_the_environment_is_the_bank_s_store(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(bank))

    assert artifact_location(bank, "a b/c") == "adapterbank:/a%20b%2Fc"


def test_a_second_call_changes_nothing(bank: Path) -> None:
    ensure_store(bank)
    before = (bank / "mlflow.db").read_bytes()

    ensure_store(bank)

    assert (bank / "mlflow.db").read_bytes() == before


def test_the_store_lets_readers_in_while_somebody_writes(bank: Path) -> None:
    with closing(sqlite3.connect(bank / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_moved_bank_takes_its_artifacts_along(bank: Path, tmp_path: Path) -> None:
    client = open_client(bank)
    experiment = client.create_experiment("digits", artifact_location(bank, "digits"))
    old = client.create_run(experiment).info.run_id
    client.log_dict(old, {"a": 1}, "a.json")

    moved = tmp_path / "moved here"
    bank.rename(moved)
    client = open_client(moved)
    new = client.create_run(experiment).info.run_id
    client.log_dict(new, {"b": 2}, "b.json")

    assert [found.path for found in client.list_artifacts(old)] == ["a.json"]
    assert len(list(moved.rglob("b.json"))) == 1
    assert not bank.exists()


def test_a_copied_bank_keeps_its_files_to_itself(bank: Path, tmp_path: Path) -> None:
    with open_run(bank, experiment="digits", name="a run", params={}) as run:
        pass
    copied = Path(shutil.copytree(bank, tmp_path / "copied"))

    with open_run(copied, experiment="digits", name="a run", params={}, run_id=run.run_id) as same:
        same.json("b.json", {"b": 2})

    assert same.run_id == run.run_id
    assert len(list(copied.rglob("b.json"))) == 1
    assert not list(bank.rglob("*.json"))


@pytest.mark.slow
def test_other_processes_find_the_files_of_a_moved_bank_by_its_store(
    bank: Path, tmp_path: Path
) -> None:
    with open_run(bank, experiment="digits", name="a run", params={}) as run:
        run.json("a.json", {"a": 1})
    moved = bank.rename(tmp_path / "moved")

    said = run_installed(
        "import sys, mlflow; print(mlflow.artifacts.load_dict(sys.argv[1]))",
        f"runs:/{run.run_id}/a.json", folder=tmp_path,
        tracking=tracking_uri(moved), installed=tmp_path / "installed",
    )  # fmt: skip

    assert said.splitlines()[-1] == "{'a': 1}"


@pytest.mark.parametrize("address", ["adapterbank:/../x", "adapterbank://etc", "adapterbank:/a/.."])
def test_an_address_never_leads_out_of_the_folder(bank: Path, address: str) -> None:
    with pytest.raises(MlflowException, match="is not adapterbank:/"):
        open_run_files(address, tracking_uri(bank))


def test_a_client_of_a_server_finds_the_files_from_within_the_bank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERBANK_BANK", str(tmp_path))
    with pytest.raises(MlflowException, match="not inside a bank"):
        open_run_files("adapterbank:/digits", "http://127.0.0.1:9")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "params.yaml").touch()

    files = open_run_files("adapterbank:/digits", "http://127.0.0.1:9")

    assert Path(files.artifact_dir) == tmp_path / "mlartifacts" / "digits"


def displaced(bank: Path, tmp_path: Path) -> tuple[Path, str]:
    """Return a moved bank whose store has absolute addresses, and the id of its run."""
    client = open_client(bank)
    old = (bank / "mlartifacts" / "digits").as_uri()
    run = client.create_run(client.create_experiment("digits", old)).info.run_id
    client.log_dict(run, {"a": 1}, "a.json")
    return bank.rename(tmp_path / "moved"), run


def test_absolute_addresses_of_a_moved_bank_are_told(bank: Path, tmp_path: Path) -> None:
    open_client(bank).create_experiment("mine", "s3://somewhere")
    assert displaced_experiments(bank) == ()

    moved, _ = displaced(bank, tmp_path)

    assert [experiment.name for experiment in displaced_experiments(moved)] == ["digits"]


def test_what_another_store_addresses_is_its_owner_s_business(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, _ = displaced(bank, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(moved))
    (tmp_path / "another").mkdir()

    assert displaced_experiments(tmp_path / "another") == ()
    with open_run(tmp_path / "another", experiment="digits", name="a run", params={}):
        pass
    assert {e.name for e in open_client(moved).search_experiments()} == {"Default", "digits"}


@pytest.mark.parametrize("continues", [False, True])
def test_absolute_addresses_of_a_moved_bank_stop_no_run(
    bank: Path, tmp_path: Path, continues: bool
) -> None:
    moved, old = displaced(bank, tmp_path)

    with open_run(
        moved, experiment="digits", name="a run", params={}, run_id=old if continues else None
    ) as run:
        run.json("b.json", {"b": 2})

    assert len(list(moved.rglob("b.json"))) == 1
    assert not bank.exists()
    client = open_client(moved)
    assert client.get_run(run.run_id).data.tags.get("adapterbank.continues") == (
        old if continues else None
    )
    aside = client.get_experiment(client.get_run(old).info.experiment_id)
    assert aside.name.startswith("digits (before the bank was moved, ")
    assert displaced_experiments(moved) == ()


def test_a_deleted_experiment_of_a_moved_bank_is_restored_and_set_aside(
    bank: Path, tmp_path: Path
) -> None:
    moved, old = displaced(bank, tmp_path)
    client = open_client(moved)
    client.delete_experiment(client.get_run(old).info.experiment_id)
    with open_run(moved, experiment="digits", name="a run", params={}) as run:
        pass
    assert client.get_run(run.run_id).info.experiment_id != client.get_run(old).info.experiment_id
    assert displaced_experiments(moved) == ()


@pytest.mark.parametrize(
    ("module", "package"),
    [("psycopg2", "psycopg2-binary"), ("MySQLdb", "mysqlclient"), ("a_driver.of", "a_driver")],
)
def test_a_driver_that_is_not_installed_is_named_as_what_to_install_without_the_password(
    bank: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:secret@host/runs")
    with pytest.raises(FetchError) as caught, reported(bank):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    assert "postgresql://ann:***@host/runs" in caught.value.message
    assert str(caught.value.fix).endswith(f" -m pip install {package}")


def test_a_database_without_its_driver_is_an_error_of_ours(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mssql+adodbapi_none://host/runs")
    with pytest.raises(AdapterBankError):
        open_run(bank, experiment="digits", name="a run", params={})


def test_a_link_to_the_bank_is_the_bank(bank: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(bank)

    assert ensure_store(link) == ensure_store(bank)


def test_a_look_at_the_store_drops_no_lock_that_this_process_has_on_it(bank: Path) -> None:
    # POSIX drops all locks of a process on a file when it closes any descriptor of it. Without
    # them, the next process to leave would delete the log of transactions that is in use here.
    ensure_store(bank)
    with closing(sqlite3.connect(bank / DATABASE, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE ours (number)")
        ensure_store(bank)
        program = (
            "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1]);"
            "connection.execute('SELECT * FROM ours'); connection.close()"
        )
        subprocess.run([sys.executable, "-c", program, str(bank / DATABASE)], check=True)
        assert (bank / f"{DATABASE}-wal").exists()


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100], ids=["empty", "text"])
def test_a_file_that_is_no_store_is_refused_by_name(bank: Path, content: bytes) -> None:
    (bank / "mlflow.db").write_bytes(content)

    with pytest.raises(AdapterBankError, match=r"mlflow\.db is not a usable MLflow store"):
        ensure_store(bank)


def test_a_missing_folder_is_reported_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    with pytest.raises(AdapterBankError, match="Cannot write"):
        ensure_store(tmp_path / "nowhere")


def test_an_error_of_the_store_names_the_store(bank: Path) -> None:
    with pytest.raises(AdapterBankError, match=r"MLflow store sqlite:///.*mlflow\.db: "):  # noqa: SIM117
        with reported(bank):
            open_client(bank).get_run("no such run")


def test_threads_make_one_store_over_what_a_killed_process_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db.init").write_bytes(b"half a database")
    (tmp_path / "mlflow.db.init-wal").write_bytes(b"of another")
    names: list[str] = []

    def use() -> None:
        names.append(open_client(tmp_path).get_experiment("0").name)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert names == ["Default"] * 4
    assert not list(tmp_path.glob("mlflow.db.init*"))


_FIRST_USE = """
import sys
from pathlib import Path
from adapterbank.integrations.environment import quiet_environment
quiet_environment()
from adapterbank.integrations.mlflow.runs import open_run
print("ready", flush=True)
sys.stdin.readline()
with open_run(Path(sys.argv[1]), experiment="digits", name="run", params={"rank": 8}) as run:
    run.epoch(1, {"loss": 0.5})
print(run.run_id)
"""


@pytest.mark.slow  # each process imports MLflow
def test_processes_that_use_a_fresh_store_at_once_all_succeed(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _FIRST_USE, str(tmp_path)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    results = [worker.communicate(timeout=60) for worker in workers]

    assert [worker.returncode for worker in workers] == [0, 0, 0], results
    assert len({output for output, _ in results}) == 3
    assert [errors for _, errors in results] == ["", "", ""]  # and quietly


def damage_rows(bank: Path, statement: str) -> None:
    with closing(sqlite3.connect(bank / DATABASE)) as connection, connection:
        connection.execute(statement)


ROWS = {
    "name-no-text": "UPDATE registered_models SET name = CAST(x'64b2' AS TEXT)",
    "no-version": "UPDATE model_versions SET version = 'x'",
    "no-time": "UPDATE model_versions SET creation_time = 'x'",
    "source-no-text": "UPDATE model_versions SET source = CAST(x'b2' AS TEXT)",
    "tag-no-text": "UPDATE model_version_tags SET value = CAST(x'b2b3' AS TEXT)",
    "alias-of-none": "UPDATE registered_model_aliases SET version = 'x'",
    "number-of-letters": "UPDATE model_versions SET version = x'ffff'",
}


@pytest.mark.parametrize("statement", ROWS.values(), ids=ROWS)
def test_a_row_that_cannot_be_read_is_the_stores_fault_and_said_so(
    bank: Path, statement: str
) -> None:
    mirror_version(bank, "dtd", 1, "1" * 64, "2" * 32, tags={})
    mirror_alias(bank, "dtd", "champion", "1" * 64)
    damage_rows(bank, statement)
    for ask in (lambda: lookup(bank, "dtd"), lambda: other_models(bank, ["dtd"])):
        with contextlib.suppress(AdapterBankError):
            ask()


@pytest.mark.parametrize("error", [UnicodeDecodeError("utf-8", b"\xb2", 0, 1, "x"), KeyError("a"),
                                   TypeError(), sqlite3.InterfaceError("x"), OverflowError("x")],
                         ids=lambda error: type(error).__name__)  # fmt: skip
def test_whatever_a_damaged_store_makes_of_mlflow_names_the_store(
    bank: Path, error: Exception
) -> None:
    with pytest.raises(AdapterBankError, match=r"mlflow\.db: ") as caught, reported(bank):
        raise error
    assert "adapterbank sync" in (caught.value.fix or "")
    assert type(error).__name__ in caught.value.message
