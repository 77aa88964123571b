"""Who may use the Ray that a search starts, whose Ray a search uses, and how much of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import AuthenticationError

from adapterbank.config.search import SearchConfig
from adapterbank.errors import AdapterBankError, InputError
from adapterbank.integrations.environment import quiet_environment
from adapterbank.search.cluster import check_gpus, connected, per_trial, plain_reason

NAMES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
Started = list[tuple[dict[str, Any], dict[str, str]]]


def guard() -> dict[str, str]:
    return {name: os.environ[name] for name in NAMES if name in os.environ}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Return what Ray is asked to do, with the guard in the environment then; it does nothing."""
    for name in (*NAMES, "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")  # so that it is put back, whatever the test leaves
        monkeypatch.delenv(name)
    quiet_environment()
    asked: Started = []
    monkeypatch.setattr(ray, "init", lambda **options: asked.append((options, guard())))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.setattr("adapterbank.search.cluster._knock", lambda _: None)
    return asked


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def init(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)


def test_the_program_s_defaults_say_nothing_of_who_may_use_ray(started: Started) -> None:
    assert guard() == {}
    assert started == []


def test_a_ray_of_our_own_has_a_token_that_nobody_else_knows(started: Started) -> None:
    with connected(None):
        pass

    ((options, guarded),) = started
    assert "address" not in options
    assert guarded.keys() == {"RAY_AUTH_TOKEN"}
    assert len(guarded["RAY_AUTH_TOKEN"]) >= 32
    assert guard() == {}  # what this process does next is not guarded by it


def test_the_token_stays_for_the_life_of_the_process_because_ray_reads_it_once(
    started: Started,
) -> None:
    for _ in range(2):
        with connected(None):
            pass

    assert started[0][1] == started[1][1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RAY_AUTH_MODE", "disabled"),
        ("RAY_AUTH_MODE", "token"),
        ("RAY_AUTH_TOKEN", "mine"),
        ("RAY_AUTH_TOKEN_PATH", "/a/file"),
    ],
)
def test_how_the_user_guards_ray_is_kept(
    started: Started, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with connected(None):
        pass

    assert started[0][1] == {name: value}
    assert guard() == {name: value}


def test_ray_is_told_of_the_cores_that_this_process_may_use(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterbank.search.cluster.usable_cores", lambda: 3)
    with connected(None):
        pass
    assert started[0][0]["num_cpus"] == 3


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize("place", ["x" * 70, "missing", "a/short/one"])
def test_a_ray_of_our_own_has_a_folder_whose_path_leaves_room_for_its_sockets(
    started: Started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, place: str
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / place) if place != "a/short/one" else place)
    with connected(None):
        folder = Path(started[0][0]["_temp_dir"])
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(str(folder)) <= 32
    assert not folder.exists()


def test_a_folder_that_will_do_is_left_to_ray(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")  # noqa: S108  # nothing is written there
    with connected(None):
        pass
    assert started[0][0]["_temp_dir"] is None


def test_where_no_folder_will_do_the_variable_that_names_one_is_told(
    started: Started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("x" * 70)))
    monkeypatch.setattr("adapterbank.search.cluster._PLACES", (str(tmp_path / "missing"),))
    with (
        pytest.raises(AdapterBankError, match="path of at most 32 bytes") as caught,
        connected(None),
    ):
        pass
    assert "RAY_TMPDIR" in str(caught.value.fix)
    assert started == []


def test_what_the_operating_system_refuses_ray_is_told_with_its_mend(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, PermissionError("no place here"))
    with pytest.raises(AdapterBankError, match="no place here") as caught, connected(None):
        pass
    assert caught.value.fix
    assert started == []


def by_option(monkeypatch: pytest.MonkeyPatch) -> str | None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:1")
    return "there:6379"


def by_environment(monkeypatch: pytest.MonkeyPatch) -> str | None:
    monkeypatch.setenv("RAY_ADDRESS", "there:6379")  # as Ray does in a job
    return None


@pytest.mark.parametrize("address", [by_option, by_environment])
def test_a_cluster_that_is_there_is_joined_with_the_user_s_own_token_and_its_resources(
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
    address: Callable[[pytest.MonkeyPatch], str | None],
) -> None:
    with connected(address(monkeypatch)):
        pass

    ((options, guarded),) = started
    assert options["address"] == "there:6379"
    assert not options.keys() & {"num_cpus", "num_gpus"}
    assert guarded == {}


@pytest.mark.parametrize(
    "cause",
    [
        AuthenticationError("InvalidAuthToken"),
        RuntimeError("Failed to connect. Last error: …\nray.exceptions.AuthenticationError: no"),
    ],
    ids=["raised", "told"],
)
def test_a_cluster_with_another_token_says_what_to_set(
    started: Started, monkeypatch: pytest.MonkeyPatch, cause: Exception
) -> None:
    error = ConnectionError("Failed to connect to Ray cluster")
    error.__cause__ = cause
    refuse(monkeypatch, error)

    with (
        pytest.raises(AdapterBankError, match="there:6379 does not let us in") as caught,
        connected("there:6379"),
    ):
        pass

    assert "RAY_AUTH_TOKEN" in str(caught.value.fix)
    assert started == []


def test_a_cluster_that_does_not_answer_is_named(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, ConnectionError("nobody there"))

    with (
        pytest.raises(AdapterBankError, match="no Ray cluster answers at there:6379: nobody there"),
        connected("there:6379"),
    ):
        pass
    assert started == []


@pytest.mark.timeout(30)  # Ray would take minutes
def test_where_nobody_listens_is_said_at_once_and_without_asking_ray(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse(monkeypatch, AssertionError("Ray was asked"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"

        with (
            pytest.raises(AdapterBankError, match=f"{address}: Connection refused") as caught,
            connected(address),
        ):
            pass
    assert "leave --address out" in str(caught.value.fix)


@pytest.mark.parametrize("address", ["auto", "local", "ray://127.0.0.1:1"])
def test_an_address_that_only_ray_understands_is_left_to_ray(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    refuse(monkeypatch, ConnectionError("nobody there"))

    with pytest.raises(AdapterBankError, match=f"at {address}: nobody there"), connected(address):
        pass


def test_a_machine_on_which_ray_does_not_start_is_told_in_a_line(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, RuntimeError("The node could not\n  be started.\n\n" + "more " * 100))

    with (
        pytest.raises(AdapterBankError, match="on this machine: The node could") as caught,
        connected(None),
    ):
        pass
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300
    assert started == []


_RAISED = """Failure # 1 (occurred at 2026-11-01_10-00-00)
\x1b[36mray::ImplicitFunc.train()\x1b[39m (pid=7, ip=10.0.0.1, actor_id=ab, repr=run_trial)
  File "/x/ray/tune/trainable/trainable.py", line 327, in train
    raise skipped from exception_cause(skipped)
  File "/x/adapterbank/search/trial.py", line 1, in run_trial
"""
_DIED = """Failure # 4 (occurred at 2026-11-01_10-00-00)
The actor died unexpectedly before finishing this task.
\tclass_name: ImplicitFunc
\tactor_id: ab
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "its worker was lost"),
        (_DIED, "its worker was lost"),
        (f"{_RAISED}ValueError: no\n{_DIED}", "its worker was lost"),
        (f"{_DIED}{_RAISED}ValueError: no\n", "ValueError: no"),
        ("The node was lost in a new way", "The node was lost in a new way"),
        (
            f"{_DIED}Task was killed due to the node running low on memory.",
            "its worker was lost: its node ran out of memory",
        ),
        (
            f"{_RAISED}adapterbank.errors.IntegrityError: a: damaged\nTo mend it: mend: it",
            "a: damaged",
        ),
        (f"{_RAISED}torch.OutOfMemoryError: CUDA: full", "OutOfMemoryError: CUDA: full"),
        (f"{_RAISED}ValueError: no", "ValueError: no"),
        ("Version mismatch:\n    Ray: 1\n", "Version mismatch: Ray: 1"),
    ],
)
def test_of_what_ray_says_only_the_reason_is_told(text: str, reason: str) -> None:
    assert plain_reason(text) == reason


NODES = ({"CPU": 8.0}, {"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 2.0})


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Return what a cluster of three nodes has, of which a fourth was lost."""
    nodes = [{"Alive": True, "Resources": resources} for resources in NODES]
    lost = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, lost])
    return {"CPU": 14.0, "GPU": 3.0}


@pytest.mark.parametrize(
    ("cpus", "gpus", "expected"),
    [
        (1.0, 0.25, {"cpu": 1.0, "gpu": 0.25}),
        (0.5, 0.5, {"cpu": 0.5, "gpu": 0.5}),
        (2.0, None, {"cpu": 2.0, "gpu": 1.0}),  # there are some
        (8.0, 0.0, {"cpu": 8.0}),
        (1.0, 2.0, {"cpu": 1.0, "gpu": 2.0}),
    ],
)
def test_a_trial_has_the_share_it_was_given(
    cluster: dict[str, float], cpus: float, gpus: float | None, expected: dict[str, float]
) -> None:
    config = SearchConfig(cpus_per_trial=cpus, gpus_per_trial=gpus)

    assert per_trial(config, cluster, threads=2) == expected


def test_a_machine_without_gpus_gives_none_and_asks_for_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])

    assert per_trial(SearchConfig(), {"CPU": 2.0}, threads=1) == {"cpu": 1.0}
    check_gpus({"cpu": 1.0})  # asks nobody
    with pytest.raises(InputError, match=r"asks for 0\.25 GPUs; the largest node has 0"):
        per_trial(SearchConfig(gpus_per_trial=0.25), {"CPU": 2.0}, threads=1)


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ({"gpus_per_trial": 3.0}, "asks for 3 GPUs; the largest node has 2, the whole cluster 3"),
        ({"cpus_per_trial": 9.0}, "asks for 9 CPUs; the largest node has 8, the whole cluster 14"),
    ],
)
def test_a_trial_that_fits_no_node_is_refused_however_large_the_cluster(
    cluster: dict[str, float], share: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        per_trial(SearchConfig.model_validate(share), cluster, threads=1)
