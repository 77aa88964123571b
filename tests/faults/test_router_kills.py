"""A router that is killed while it is built or rolled back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from adapterbank.inference.router_versions import rebuild_router
from adapterbank.inference.routing import load_router
from adapterbank.records import ROUTER
from adapterbank.registry.store import Registry
from tests.router_bank import colour_registry, publish

# Kills itself before or after the n-th thing it does to the disk, for every n there is.
MORTAL = """
import sys
from adapterbank.inference.router_versions import rebuild_router
from adapterbank.registry.store import Registry
from tests.mortal import survives

root, command, last = sys.argv[1], sys.argv[2], 0
started = len(Registry.open(root).history("router")) if command == "rollback" else None
work = {
    "rebuild": lambda: rebuild_router(Registry.open(root), reason="a test"),
    "rollback": lambda: Registry.open(root).rollback("router"),
}[command]
while not survives(work, last):
    registry = Registry.open(root)
    kinds = {problem.kind for problem in registry.verify()}
    assert kinds <= {"unfinished", "orphan"}, (last, registry.verify())
    if started is not None and len(registry.history("router")) > started:
        break  # it had moved before it was killed; another would go back further
    last += 1
assert {p.kind for p in Registry.open(root).verify()} <= {"unfinished"}
print(last)
"""


def dies(registry: Registry, command: str) -> int:
    """Kill a command at every point; return how many points it passed."""
    done = subprocess.run(
        [sys.executable, "-c", MORTAL, str(registry.root), command],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_rebuild_and_a_rollback_killed_anywhere_leave_nothing_wrong(tmp_path: Path) -> None:
    registry = colour_registry(tmp_path, "reds")
    assert dies(registry, "rebuild") > 20  # the first router, with its folder and its record
    publish(registry, "greens", 2)
    assert dies(registry, "rebuild") > 15
    assert registry.aliases(ROUTER) == {"champion": 2, "previous": 1}
    assert dies(registry, "rollback") > 3
    assert registry.aliases(ROUTER) == {"champion": 1}
    rebuild_router(registry, reason="by hand", forward=True)
    assert registry.verify() == ()
    assert load_router(registry)[1].tasks == ("greens", "reds")
    actions = [event.action for event in registry.history(ROUTER)]
    assert actions == ["register", "promote", "register", "promote", "rollback", "promote"]
