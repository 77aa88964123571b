"""A search on a cluster of real nodes: all of them work, and one that is lost costs nothing."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray_nodes import (
    RAY,
    Cluster,
    answers,
    cluster,
    free_port,
    resume,
    suspend,
    wait_until,
)
from tests.search_banks import (
    best_of,
    figures,
    kept_of,
    make_search_bank,
    run_program,
    seconds_of,
    start_program,
    take_best,
    trials_of,
)

TRIALS = 3
EPOCHS = 60  # a second or two
_SEARCH = f"{{sampler: random, scheduler: none, trials: {TRIALS}, seed: 3}}"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """Return a cluster of a head; the tests let others join."""
    with cluster() as made:
        made.head("--num-cpus=1", "--num-gpus=0", "--include-dashboard=false")
        yield made


@pytest.mark.timeout(240)
def test_a_node_lost_and_a_node_gained_in_the_middle_change_nothing(
    nodes: Cluster, tmp_path: Path
) -> None:
    bank = make_search_bank(tmp_path / "bank", search=_SEARCH, epochs=EPOCHS)
    (head,) = nodes.nodes
    command = ("tune", "colours", "--storage")
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    undisturbed = run_program(
        bank, *command, alone.as_uri(), "--address", nodes.address, environment=nodes.environment
    )
    assert undisturbed.returncode == 0, undisturbed.stderr
    best = take_best(bank, "colours")

    worker = nodes.join("--num-cpus=1", '--resources={"far": 1}')
    wait_until(lambda: worker.raylet() is not None, "the worker starts", worker)
    job = {**nodes.environment, "RAY_ADDRESS": nodes.address}  # as Ray tells the jobs it runs
    with start_program(bank, *command, shared.as_uri(), environment=job) as search:
        wait_until(lambda: bool(kept_of(shared, "colours")), "a trial runs on a node")
        # Held, or it would have done them all before the other node has a worker.
        suspend(head.trials() | worker.trials())
        wait_until(lambda: len(kept_of(shared, "colours")) == 2, "a trial runs on each node")
        lost, left = worker.trials(), head.trials()
        suspend(lost | left)
        before = kept_of(shared, "colours")
        worker.kill()
        late = nodes.join("--num-cpus=1", '--resources={"late": 1}')
        wait_until(lambda: bool(late.trials()), "a node that joins late gets a trial", late)
        resume(left)
        _, said = search.communicate()

    assert search.returncode == 0, said
    trials = trials_of(shared, "colours")
    assert figures(trials) == figures(trials_of(alone, "colours"))
    assert [trial["state"] for trial in trials.values()] == ["finished"] * TRIALS
    assert best_of(bank, "colours") == best
    assert len(lost) == 1
    for number, seconds in before.items():  # not one epoch that was kept was trained twice
        assert seconds_of(trials[number])[: len(seconds)] == seconds, number


@pytest.mark.timeout(120)
def test_who_is_not_let_in_and_what_cannot_run_is_said_before_anything_starts(
    nodes: Cluster, tmp_path: Path
) -> None:
    bank = make_search_bank(tmp_path / "bank", search=_SEARCH, epochs=EPOCHS)
    blind = nodes.join("--num-cpus=1", "--num-gpus=1")  # it says
    wait_until(lambda: blind.raylet() is not None, "the worker starts", blind)
    command = ("tune", "colours", "--address", nodes.address)
    stranger = {"RAY_AUTH_TOKEN": "another", "RAY_AUTH_MODE": "token"}

    refused = run_program(bank, *command, environment=stranger)
    unseen = run_program(bank, *command, "--gpus-per-trial", "0.25", environment=nodes.environment)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"the Ray cluster at {nodes.address} does not let us in" in refused.stderr
    assert (unseen.returncode, unseen.stdout) == (2, "")
    assert f"PyTorch sees no GPU on {platform.node()}" in unseen.stderr
    assert trials_of(bank / "work", "colours/search") == {}
    blind.kill()


@pytest.mark.timeout(180)
def test_a_job_that_is_submitted_to_a_cluster_searches_on_it(tmp_path: Path) -> None:
    bank = make_search_bank(tmp_path / "bank", search=_SEARCH, epochs=2)
    port = free_port()
    with cluster() as made:
        node = made.head(
            "--num-cpus=1", "--num-gpus=0", "--include-dashboard=true",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={port}",
            f"--dashboard-agent-listen-port={free_port()}",
        )  # fmt: skip
        wait_until(lambda: answers(port), "the job server answers", node)
        # The job's driver runs on the node, whose own MLflow is nowhere: workers must not miss it.
        own = {"env_vars": {"MLFLOW_TRACKING_URI": f"sqlite:///{bank / 'mlflow.db'}"}}
        submitted = subprocess.run(
            [*RAY, "job", "submit", "--address", f"http://127.0.0.1:{port}",
             "--runtime-env-json", json.dumps(own), "--",
             sys.executable, "-m", "adapterbank", "tune", "colours", "--bank", str(bank)],
            env=os.environ | dict(made.environment),
            capture_output=True, text=True, check=False, timeout=150,
        )  # fmt: skip

    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert f"Chosen among {TRIALS} trials" in submitted.stdout
    assert best_of(bank, "colours")["budget"]["trials"] == TRIALS
