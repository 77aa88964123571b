"""A registry against a model of it: any sequence of commands, any wrong expectation, reopenings."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adapterbank.errors import ConflictError, InputError, UnknownName
from adapterbank.registry.store import ANY, Registry
from tests.registry_samples import files_of, new_registry

TASKS = ("dtd", "eurosat")
ALIASES = ("champion", "challenger")
FILES = {(task, seed): files_of(task, seed) for task in TASKS for seed in range(4)}

tasks = st.sampled_from(TASKS)
aliases = st.sampled_from(ALIASES)


class RegistryMachine(RuleBasedStateMachine):
    """Holds seeds in order of registration, and for every alias the moves that still stand."""

    @initialize()
    def create(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="registry"))
        self.registry = new_registry(self.folder)
        self.seeds: dict[str, list[int]] = {task: [] for task in TASKS}
        self.moves: dict[tuple[str, str], list[int]] = {
            (task, alias): [] for task in TASKS for alias in ALIASES
        }
        self.steps = dict.fromkeys(TASKS, 0)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            assert self.registry.verify() == ()
            shutil.rmtree(self.folder)

    @rule(task=tasks, seed=st.integers(0, 3))
    def register(self, task: str, seed: int) -> None:
        version = self.registry.register(task, FILES[task, seed])
        if seed not in self.seeds[task]:
            self.seeds[task].append(seed)
            self.steps[task] += 1
        assert version.version == self.seeds[task].index(seed) + 1

    @rule(
        task=tasks,
        alias=aliases,
        number=st.integers(1, 4),
        belief=st.one_of(st.none(), st.integers(1, 4), st.sampled_from(["right", "any"])),
    )
    def promote(self, task: str, alias: str, number: int, belief: int | str | None) -> None:
        moves = self.moves[task, alias]
        held = moves[-1] if moves else None
        expected = ANY if belief == "any" else held if isinstance(belief, str) else belief
        before = self._record(task)
        try:
            move = self.registry.promote(f"{task}@{number}", alias=alias, expected=expected)
        except UnknownName:
            assert number > len(self.seeds[task])
        except ConflictError:
            assert expected != held
        else:
            assert expected is ANY or expected == held
            assert (move.before, move.after.version) == (held, number)
            assert move.moved == (held != number)
            if move.moved:
                moves.append(number)
                self.steps[task] += 1
                return
        assert self._record(task) == before  # refused or no-op: not a byte changed

    @rule(task=tasks, alias=aliases, right=st.booleans())
    def roll_back(self, task: str, alias: str, right: bool) -> None:
        moves = self.moves[task, alias]
        before = self._record(task)
        expected = (moves[-1] if moves else None) if right else 9
        try:
            move = self.registry.rollback(task, alias=alias, expected=expected)
        except UnknownName:
            assert not moves
        except ConflictError:
            assert not right
        except InputError:
            assert len(moves) == 1
        else:
            assert (move.before, move.after.version) == (moves[-1], moves[-2])
            moves.pop()
            self.steps[task] += 1
            return
        assert self._record(task) == before

    @rule(task=tasks, number=st.integers(1, 4))
    def refuse(self, task: str, number: int) -> None:
        if number > len(self.seeds[task]):
            with pytest.raises(UnknownName):
                self.registry.record_verdict(f"{task}@{number}", {"ok": False})
            return
        event = self.registry.record_verdict(f"{task}@{number}", {"ok": False})
        self.steps[task] += 1
        assert (event.step, event.to_version) == (self.steps[task], number)

    @rule(task=tasks)
    def retire(self, task: str) -> None:
        if not self.seeds[task]:
            with pytest.raises(UnknownName):
                self.registry.retire(task)
            return
        held = [alias for alias in ALIASES if self.moves[task, alias]]
        events = self.registry.retire(task)
        self.steps[task] += len(events)
        if held:
            assert sorted(event.alias or "" for event in events) == sorted(held)
        for alias in ALIASES:
            self.moves[task, alias] = []
        assert self.registry.retire(task) == ()
        with pytest.raises(UnknownName, match="removed"):
            self.registry.resolve(task)

    @rule()
    def reopen(self) -> None:
        self.registry = Registry.open(self.folder)

    @rule(task=tasks, number=st.integers(1, 4))
    def read(self, task: str, number: int) -> None:
        if number > len(self.seeds[task]):
            with pytest.raises(UnknownName):
                self.registry.resolve(f"{task}@{number}")
            return
        version = self.registry.resolve(f"{task}@{number}")
        files = FILES[task, self.seeds[task][number - 1]]
        read = self.registry.read(self.registry.resolve(f"{task}@sha256:{version.digest[:16]}"))
        assert {name: read[name] for name in files} == files

    @precondition(lambda self: hasattr(self, "registry"))
    @invariant()
    def aliases_and_history_agree(self) -> None:
        known = tuple(task for task in TASKS if self.seeds[task])
        assert self.registry.tasks() == known
        for task in known:
            meant = {a: self.moves[task, a][-1] for a in ALIASES if self.moves[task, a]}
            if len(self.moves[task, "champion"]) > 1:
                meant["previous"] = self.moves[task, "champion"][-2]
            assert self.registry.aliases(task) == meant
            steps = [event.step for event in self.registry.history(task)]
            assert steps == list(range(1, self.steps[task] + 1))

    def _record(self, task: str) -> bytes | None:
        path = self.folder / "aliases" / f"{task}.json"
        return path.read_bytes() if path.exists() else None


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
