"""How many cores a process may use: its affinity and the quotas of its control groups."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from adapterbank import cores
from adapterbank.cores import usable_cores
from adapterbank.data import batches
from adapterbank.integrations import environment

GROUPS = {
    "none": ("", {}),
    "no quota": ("0::/user/a\n", {"user/a/cpu.max": "max 100000\n"}),
    "version 2": ("0::/user/a\n", {"user/a/cpu.max": "300000 100000\n"}),
    "of a group around it": ("0::/user/a\n", {"user/cpu.max": "300000 100000", "user/a/x": ""}),
    "the least of all": (
        "0::/user/a\n",
        {"user/cpu.max": "300000 100000", "user/a/cpu.max": "900000 100000"},
    ),
    "a part of a core is none": ("0::/\n", {"cpu.max": "399999 100000\n"}),
    "less than one core": ("0::/\n", {"cpu.max": "50000 100000\n"}),
    "both versions at once": ("0::/a\n", {"unified/a/cpu.max": "300000 100000\n"}),
    "version 1": (
        "5:cpuset:/\n4:cpu,cpuacct:/job\n",
        {"cpu,cpuacct/job/cpu.cfs_quota_us": "300000\n",
         "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"},
    ),
    "version 1 without a quota": (
        "4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
    ),
    "version 1 in a container": (
        "4:cpu,cpuacct:/docker/0123\n",
        {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
    ),
    "another controller": ("4:memory:/\n", {"memory/cpu.max": "100000 100000\n"}),
    "no number": ("0::/\n", {"cpu.max": "many\n"}),
}  # fmt: skip
ALLOWED = 8
EXPECTED = {"less than one core": 1} | dict.fromkeys(
    ("none", "no quota", "version 1 without a quota", "another controller", "no number"), ALLOWED
)


@pytest.mark.parametrize("case", GROUPS)
def test_a_process_may_use_what_affinity_and_all_quotas_allow(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "allowed_cores", lambda: ALLOWED)
    says, files = GROUPS[case]
    for name, content in {"cgroup": says, **{f"mount/{n}": c for n, c in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert usable_cores(tmp_path / "cgroup", tmp_path / "mount") == EXPECTED.get(case, 3)


@pytest.mark.skipif(shutil.which("taskset") is None, reason="there is no taskset program")
def test_the_cores_of_the_machine_that_a_process_is_kept_from_do_not_count() -> None:
    core = str(min(os.sched_getaffinity(0)))
    code = "from adapterbank.cores import usable_cores; print(usable_cores())"
    ran = subprocess.run(
        [shutil.which("taskset") or "", "-c", core, sys.executable, "-c", code],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout == "1\n"


def test_images_are_decoded_by_no_more_threads_than_there_are_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "usable_cores", lambda: 1)
    decoded = batches.in_batches(lambda _: threading.current_thread().name, range(64), 64)
    assert {name for batch in decoded for name in batch} == {"decode_0"}


@pytest.mark.parametrize(("usable", "expected"), [(2, "2"), (8, None)])
def test_pytorch_is_told_of_a_quota_which_it_does_not_see(
    usable: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(environment, "usable_cores", lambda: usable)
    monkeypatch.setattr(environment, "allowed_cores", lambda: 8)
    environment.quiet_environment()
    assert os.environ.get("OMP_NUM_THREADS") == expected
