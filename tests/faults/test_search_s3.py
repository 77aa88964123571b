"""A search whose trials keep their state in a bucket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adapterbank.integrations.mlflow.store import open_client
from tests import s3
from tests.ray_nodes import wait_until
from tests.search_banks import (
    best_of,
    done_of,
    kept_of,
    make_search_bank,
    run_program,
    seconds_of,
    start_program,
    trials_of,
)

TRIALS = 3
_SEARCH = f"{{sampler: random, scheduler: none, trials: {TRIALS}, max_concurrent: 1, seed: 3}}"


@pytest.mark.timeout(400)
def test_a_search_in_a_bucket_goes_on_and_any_copy_of_the_bank_takes_up_its_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/server.db")
    bank = make_search_bank(tmp_path / "bank", search=_SEARCH, epochs=120)
    with s3.serve() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        storage = f"s3://{server.bucket}/some/searches"
        command = ("tune", "colours", "--storage", storage)

        with start_program(bank, *command) as search:
            wait_until(
                lambda: done_of(storage, "colours") >= 1 and bool(kept_of(storage, "colours")),
                "a trial is done and another has begun",
                poll_s=0.3,  # the server is in this process
            )
            search.kill()
            assert search.wait() == -signal.SIGKILL
        kept = kept_of(storage, "colours")
        first = next(t for t in trials_of(storage, "colours").values() if t["state"] != "started")
        other = Path(shutil.copytree(bank, tmp_path / "other"))  # before there is a winner
        refused = run_program(bank, *command)
        resumed = run_program(bank, *command, "--resume")
        trials = trials_of(storage, "colours")
        keys = server.keys()
        taken = run_program(other, *command, "--address", "127.0.0.1:1")  # nobody answers there
        taken_by_stage = run_program(
            other, "stage", "tune", "colours", environment={"ADAPTERBANK_STORAGE": storage}
        )

    assert (refused.returncode, refused.stdout) == (5, "")
    assert f"{storage}/colours holds a search of colours that was interrupted" in refused.stderr
    assert resumed.returncode == 0, resumed.stderr
    assert [trial["state"] for trial in trials.values()] == ["finished"] * TRIALS
    assert seconds_of(trials[first["number"]]) == seconds_of(first)
    ((number, seconds),) = kept.items()
    assert seconds_of(trials[number])[: len(seconds)] == seconds
    assert {key for key in keys if not key.startswith("some/searches/colours/")} <= {
        "some/searches/"
    }
    assert not (bank / "work" / "colours" / "search").exists()
    for one in (taken, taken_by_stage):
        assert one.returncode == 0, one.stderr
        assert "is complete: 3 trials" in one.stderr
    assert best_of(other, "colours") == best_of(bank, "colours")
    assert (other / "work/colours/trials.csv").read_bytes() == (
        bank / "work/colours/trials.csv"
    ).read_bytes()
    assert_logged_where_mlflow_is(bank)


def assert_logged_where_mlflow_is(bank: Path) -> None:
    """Check that the tracking store is the one of the environment, and holds each trial once."""
    assert os.environ["MLFLOW_TRACKING_URI"].endswith("server.db")
    experiment = open_client(bank).get_experiment_by_name("colours")
    assert experiment is not None
    runs = open_client(bank).search_runs([experiment.experiment_id])
    assert sorted(run.data.tags.get("adapterbank.trial", "") for run in runs) == [
        "", *map(str, range(TRIALS))
    ]  # fmt: skip
    assert not list(bank.rglob("mlflow.db"))


def test_what_a_worker_runs_has_no_mlflow_to_talk_to() -> None:
    code = "import sys, adapterbank.search.trial; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
