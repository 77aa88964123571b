"""A registry against a model of it: any commands, wrong beliefs, damage and reopenings."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adapterbank.errors import ConflictError, InputError, IntegrityError, UnknownName
from adapterbank.registry.aliases import ANY
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from tests.registry_samples import files_of, new_registry

TASKS = ("dtd", "eurosat")
ALIASES = ("champion", "challenger")
FILES = {(task, seed): files_of(task, seed) for task in TASKS for seed in range(4)}

tasks = st.sampled_from(TASKS)
aliases = st.sampled_from(ALIASES)


class RegistryMachine(RuleBasedStateMachine):
    """Holds seeds in order of registration, and for every alias the moves that still stand."""

    @initialize(first=st.integers(0, 3), second=st.integers(0, 3))
    def create(self, first: int, second: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="registry"))
        self.registry = new_registry(self.folder)
        self.seeds: dict[str, list[int]] = {task: [] for task in TASKS}
        self.moves: dict[tuple[str, str], list[int]] = {
            (task, alias): [] for task in TASKS for alias in ALIASES
        }
        self.steps = dict.fromkeys(TASKS, 0)
        for task, count in zip(TASKS, (first, second), strict=True):
            for seed in range(count):  # else most runs would have little to move
                self.register(task, seed)

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

    @rule(task=tasks, number=st.integers(1, 4), data=st.data())
    def damage_and_mend(self, task: str, number: int, data: st.DataObject) -> None:
        if number > len(self.seeds[task]):
            return
        version = self.registry.resolve(f"{task}@{number}")
        path = version.path / data.draw(st.sampled_from([*FILES[task, 0], "manifest.json"]))
        content, record = bytearray(path.read_bytes()), self._record(task)
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        for ref in (None, task, str(version)):
            (problem,) = self.registry.verify(ref)
            assert (problem.kind, problem.task, problem.path) == ("damaged", task, version.path)
            assert str(path) in problem.message
        with pytest.raises(IntegrityError, match=re.escape(path.name)):
            self.registry.read(version)
        self._check_others_read(version)
        again = self.registry.register(task, FILES[task, self.seeds[task][number - 1]])
        assert again == version
        assert self.registry.verify() == ()
        assert self.registry.read(version)
        assert self._record(task) == record  # mending is no history

    def _check_others_read(self, damaged: Version) -> None:
        for task in TASKS:
            for number, seed in enumerate(self.seeds[task], start=1):
                if (task, number) == (damaged.task, damaged.version):
                    continue
                read = self.registry.read(self.registry.resolve(f"{task}@{number}"))
                assert FILES[task, seed].items() <= read.items()
            assert task == damaged.task or not self.seeds[task] or not self.registry.verify(task)

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
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
