"""Many writers at once, and writers killed anywhere: one winner a step, nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapterbank import durable
from adapterbank.errors import ConflictError
from adapterbank.registry.aliases import ANY
from adapterbank.registry.store import Registry
from tests.registry_samples import files_of, new_registry

# Runs in processes of their own: every process tries every step, in step with the others.
RACER = """
import json, sys, time
from adapterbank.errors import ConflictError
from adapterbank.registry.store import Registry

root, actor, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
registry, won, lost = Registry.open(root), [], []
for held in range(1, steps + 1):
    while registry.resolve("dtd").version < held:
        time.sleep(0.0005)
    try:
        registry.promote(f"dtd@{held + 1}", expected=held, actor=actor)
        won.append(held)
    except ConflictError as error:
        lost.append(error.exit_code)
    assert registry.read(registry.resolve("dtd"))
print(json.dumps({"won": won, "lost": lost}))
"""

# Kills itself before or after the n-th thing it does to the disk, for every n there is.
MORTAL = """
import sys
from contextlib import suppress

from adapterbank.errors import ConflictError
from adapterbank.registry.store import ANY, Registry
from tests.mortal import survives

root, other = sys.argv[1], sys.argv[2]

def roll_back_once():
    with suppress(ConflictError):  # one killed after its last rename had done its work
        Registry.open(root).rollback("dtd", expected=2)

commands = {
    "register": lambda: Registry.open(root).register_directory(other, task="dtd"),
    "promote": lambda: Registry.open(root).promote("dtd@2", expected=ANY),
    "rollback": roll_back_once,
}

for command in ("register", "promote", "rollback"):
    last = 0
    while not survives(commands[command], last):
        registry = Registry.open(root)
        kinds = {problem.kind for problem in registry.verify()}
        assert kinds <= {"unfinished", "orphan"}, (command, last, registry.verify())
        for version in registry.versions("dtd"):
            registry.read(version)
        last += 1
    assert Registry.open(root).verify() == (), command
    print(command, last, Registry.open(root).aliases("dtd"))
"""


def _registry(path: Path, versions: int) -> Registry:
    registry = new_registry(path)
    for seed in range(versions):
        registry.register("dtd", files_of("dtd", seed))
    registry.promote("dtd@1", expected=None)
    return registry


def _check_one_winner_each(registry: Registry, won: list[int], steps: int) -> None:
    assert sorted(won) == list(range(1, steps + 1))
    moves = [event for event in registry.history("dtd") if event.action == "promote"]
    assert [(e.from_version, e.to_version) for e in moves[1:]] == [
        (held, held + 1) for held in range(1, steps + 1)
    ]
    assert registry.verify() == ()


def test_of_many_promoting_processes_each_step_has_one_winner(tmp_path: Path) -> None:
    racers, steps = 4, 25
    registry = _registry(tmp_path, steps + 1)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), f"racer{i}", str(steps)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(racers)
    ]
    results = [json.loads(process.communicate(timeout=60)[0]) for process in running]
    _check_one_winner_each(registry, [step for r in results for step in r["won"]], steps)
    assert sum(len(r["lost"]) for r in results) == (racers - 1) * steps
    assert {code for r in results for code in r["lost"]} == {5}


def test_of_many_promoting_threads_each_step_has_one_winner(tmp_path: Path) -> None:
    threads, steps = 8, 15
    registry = _registry(tmp_path, steps + 1)
    barrier = threading.Barrier(threads)

    def race(_: int) -> list[int]:
        won = []
        for held in range(1, steps + 1):
            barrier.wait()
            try:
                registry.promote(f"dtd@{held + 1}", expected=held)
            except ConflictError:
                continue
            won.append(held)
        return won

    with ThreadPoolExecutor(threads) as pool:
        won = [step for wins in pool.map(race, range(threads)) for step in wins]
    _check_one_winner_each(registry, won, steps)


def test_threads_that_register_the_same_and_other_bytes_lose_nothing(tmp_path: Path) -> None:
    registry = new_registry(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        seeds = [seed % 6 for seed in range(24)]
        versions = list(pool.map(lambda s: registry.register("dtd", files_of("dtd", s)), seeds))
    assert len({v.digest for v in versions}) == 6
    assert sorted({v.version for v in versions}) == [1, 2, 3, 4, 5, 6]
    assert len(registry.history("dtd")) == 6
    assert registry.verify() == ()


def test_readers_never_meet_a_half_written_state(tmp_path: Path) -> None:
    registry = _registry(tmp_path, 3)
    done = threading.Event()

    def read() -> int:
        count = 0
        while not done.is_set():
            version = registry.resolve("dtd")
            assert registry.read(version)
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for step in range(40):
            registry.promote(f"dtd@{step % 3 + 1}", expected=ANY)
        done.set()
        assert all(reader.result() > 0 for reader in readers)


def test_verify_beside_a_writer_reports_nothing_unfinished(tmp_path: Path) -> None:
    registry = _registry(tmp_path, 1)
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(
            lambda: [registry.register("dtd", files_of("dtd", seed)) for seed in range(30)]
        )
        while not writer.done():
            assert registry.verify() == ()


def test_a_writer_killed_anywhere_leaves_nothing_wrong_and_can_be_repeated(tmp_path: Path) -> None:
    registry = new_registry(tmp_path / "registry")
    registry.register("dtd", files_of("dtd", 0))
    registry.promote("dtd@1", expected=None)
    candidate = tmp_path / "candidate"
    candidate.mkdir()
    for name, data in files_of("dtd", 1).items():
        (candidate / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", MORTAL, str(registry.root), str(candidate)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
    assert [(command, aliases) for command, _, aliases in lines] == [
        ("register", "{'champion': 1}"),
        ("promote", "{'champion': 2, 'previous': 1}"),
        ("rollback", "{'champion': 1}"),
    ]
    assert all(int(points) > 8 for _, points, _ in lines)
    assert [e.action for e in registry.history("dtd")] == [
        "register",
        "promote",
        "register",
        "promote",
        "rollback",
    ]


def test_a_lock_held_too_long_is_a_conflict(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with (
        durable.locked(path),
        pytest.raises(ConflictError, match="held by another process"),
        durable.locked(path, timeout_s=0.05),
    ):
        pass


def test_a_replaced_lock_file_locks_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with durable.locked(path):
        path.unlink()
        with durable.locked(path, timeout_s=1):
            assert path.exists()
