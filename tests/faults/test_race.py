"""Sixteen processes at once on one registry: one winner a step, and never a wrong answer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapterbank.registry.store import Registry
from adapterbank.registry.task_record import Event
from tests.faults.racing import PREDICTING, RACERS, STEPS, TASK, THREADS

ROOT = Path(__file__).parents[2]
HOLDER = re.compile(
    rf"{TASK}@champion is version (\d+) \(sha256:([0-9a-f]{{12}}), (promote|rollback) by (\w+) at "
)


@dataclass(frozen=True)
class Race:
    """What is left of it: the registry, and what each racer says it did."""

    registry: Registry
    racers: tuple[dict[str, Any], ...]

    @property
    def history(self) -> tuple[Event, ...]:
        return self.registry.history(TASK)

    @property
    def moves(self) -> tuple[Event, ...]:
        """Those of the race: the first two are from before it."""
        moves = [event for event in self.history if event.alias == "champion"]
        return tuple(moves[2:])


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> Race:
    folder = tmp_path_factory.mktemp("race")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.racing", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    racers = (json.loads((folder / f"racer-{i}.json").read_text()) for i in range(RACERS))
    return Race(Registry.open(folder / "registry"), tuple(racers))


pytestmark = pytest.mark.timeout(300)


def test_each_step_has_one_winner_and_history_names_it(race: Race) -> None:
    assert len(race.moves) == STEPS
    for step, event in enumerate(race.moves):
        tried = [(racer["actor"], racer["steps"][step]) for racer in race.racers]
        won = [(actor, did) for actor, did in tried if "won" in did]
        assert len(won) == 1, step
        actor, did = won[0]
        assert (event.actor, event.to_version, event.step) == (actor, did["won"], did["step"])
        assert {did["held"] for _, did in tried} == {event.from_version}
        assert event.action == ("rollback" if did["target"] is None else "promote")


def test_losers_get_the_conflict_error_that_names_the_winner(race: Race) -> None:
    lost = 0
    for step, event in enumerate(race.moves):
        for racer in race.racers:
            did = racer["steps"][step]
            if "won" in did:
                continue
            assert did["code"] == 5
            found = HOLDER.match(did["lost"])
            assert found is not None, did["lost"]
            version, digest, action, actor = found.groups()
            assert (int(version), action, actor) == (event.to_version, event.action, event.actor)
            assert event.digest is not None
            assert event.digest.startswith(digest)
            assert f"expected version {did['held']}" in did["lost"]
            lost += 1
    assert lost == (RACERS - 1) * STEPS


def test_history_is_complete_and_in_order(race: Race) -> None:
    assert [event.step for event in race.history] == list(range(1, 4 + 2 * STEPS + 1))
    assert race.moves[0].from_version == 2
    held = [event.to_version for event in race.moves]
    assert [event.from_version for event in race.moves[1:]] == held[:-1]
    assert race.registry.aliases(TASK)["champion"] == held[-1]
    assert race.registry.verify() == ()


def test_what_all_register_at_once_is_one_version(race: Race) -> None:
    registered = [event for event in race.history if event.action == "register"]
    assert [event.to_version for event in registered] == list(range(1, STEPS + 3))
    for step in range(STEPS):
        numbers = {racer["steps"][step]["registered"] for racer in race.racers}
        assert numbers == {step + 3}
    assert len(race.registry.versions(TASK)) == STEPS + 2
    assert all(race.registry.read(version) for version in race.registry.versions(TASK))


def test_every_answer_was_of_the_digest_that_was_asked_for(race: Race) -> None:
    counts = [racer["predictions"] for racer in race.racers]
    # Each one was compared bit for bit when it was given; here only that there were many.
    assert all(count >= 10 * THREADS for count in counts[:PREDICTING])
    assert sum(counts[PREDICTING:]) == 0


def test_not_always_the_same_one_wins_and_both_ways_do(race: Race) -> None:
    assert len({event.actor for event in race.moves}) > 3
    actions = Counter(event.action for event in race.moves)
    assert actions["promote"] >= 2 * (STEPS // 3)
    assert actions["rollback"] >= 1
