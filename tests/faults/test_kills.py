"""Commands killed at every write, flush and rename: nothing is lost, and repeating finishes it.

What the registry's own methods, ``gc`` and a checkpoint do is killed in tests/unit already; this
is whole commands, each point in a copy of the bank of its own, with bytes half written too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapterbank.__main__ import main
from adapterbank.bank.bank import Bank
from adapterbank.durable import TEMPORARY
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.registry.store import Registry
from adapterbank.registry.task_record import Event
from tests.kept_bank import OTHER, TASK, leave_mirrors_out, make_kept_bank, write_params
from tests.mortal import survives


@dataclass(frozen=True)
class Command:
    """A command and what it makes of ``colours``, whose champion is version 2 of 2.

    MLflow and DVC are left out: they come after the registry's writes, and would cost a second
    at each point.
    """

    words: str
    champion: int | None
    versions: int = 2
    codes: tuple[int, ...] = (0,)  # of the command repeated after a kill


COMMANDS = {
    "register": Command("register {root}/new", 2, versions=3),
    "promote": Command("promote colours@1", 1),
    # One killed after its work was done is not repeated further back: 5 says who has it.
    "rollback": Command("rollback colours --expected 2", 1, codes=(0, 5)),
    "remove": Command("task remove colours --yes", None),
}
Check = Callable[[Path], None]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bank that nobody changes."""
    return make_kept_bank(tmp_path_factory.mktemp("kept") / "bank").root


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the mirrors out."""
    leave_mirrors_out(monkeypatch)
    monkeypatch.delenv("ADAPTERBANK_BANK", raising=False)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_command_killed_anywhere_is_finished_by_repeating_it(
    kept: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Registry.open(kept / "registry")
    states = set[tuple[int | None, int]]()

    def check_killed(root: Path) -> None:
        registry = Registry.open(root / "registry")
        problems = registry.verify()
        assert {problem.kind for problem in problems} <= {"unfinished", "orphan"}, problems
        assert all(problem.path.exists() for problem in problems)
        assert registry.history(OTHER) == old.history(OTHER)
        history = registry.history(TASK)
        assert history[: len(old.history(TASK))] == old.history(TASK)
        for version in (*registry.versions(TASK), *registry.versions(OTHER)):
            assert registry.read(version)
        champion = registry.aliases(TASK).get("champion")
        states.add((champion, len(registry.versions(TASK))))
        Bank.open(root)  # its configuration is whole too

    def check_repeated(root: Path) -> None:
        code = _run(root, command.words)
        assert code in command.codes, capsys.readouterr().err
        registry = Registry.open(root / "registry")
        assert registry.aliases(TASK).get("champion") == command.champion
        assert len(registry.versions(TASK)) == command.versions
        assert len(registry.history(TASK)) == len(old.history(TASK)) + 1  # done once
        assert _ordered(registry.history(TASK))
        assert registry.verify() == ()
        assert _leftovers(root) == []

    points = _kill_everywhere(kept, tmp_path, command.words, check_killed, check_repeated)
    assert points >= 9  # a file's creation, its two halves, flush, fsync, rename
    assert states == {(2, 2), (command.champion, command.versions)}  # before or after, no third


def test_a_rollback_that_says_what_it_expects_is_never_done_twice(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(kept, tmp_path / "bank")
    words = COMMANDS["rollback"].words
    assert [_run(root, words), _run(root, words)] == [0, 5]
    assert "colours@champion is version 1 (" in capsys.readouterr().err
    assert Registry.open(root / "registry").aliases(TASK) == {"champion": 1}


@pytest.mark.parametrize("words", ["backbone fetch", "backbone fetch --force"])
def test_a_fetch_killed_anywhere_is_finished_by_repeating_it(tmp_path: Path, words: str) -> None:
    empty = tmp_path / "empty"
    write_params(empty)
    (empty / "registry").mkdir()

    def check_killed(root: Path) -> None:
        registry = Registry.open(root / "registry")
        problems = registry.verify()
        assert {problem.path for problem in problems} == set(_leftovers(root))
        assert {problem.kind for problem in problems} <= {"unfinished"}
        if registry.backbone_weights.exists():
            load_bank_backbone(registry)  # all of its bytes, or it would be refused

    def check_repeated(root: Path) -> None:
        assert _run(root, words) == 0
        _check_fetched(root)

    assert _kill_everywhere(empty, tmp_path / "each", words, check_killed, check_repeated) >= 18


def test_while_weights_are_fetched_again_the_old_ones_serve(kept: Path, tmp_path: Path) -> None:
    seen = set[int]()

    def check_killed(root: Path) -> None:
        registry = Registry.open(root / "registry")
        load_bank_backbone(registry)
        leftovers = _leftovers(root)
        assert [problem.path for problem in registry.verify()] == leftovers
        seen.add(len(leftovers))

    def check_collected(root: Path) -> None:
        assert _run(root, "gc") == 0  # without repeating it: the space comes back all the same
        _check_fetched(root)

    words = "backbone fetch --force"
    assert _kill_everywhere(kept, tmp_path, words, check_killed, check_collected) >= 9
    assert seen == {0, 1}


def _kill_everywhere(
    template: Path, folder: Path, words: str, check_killed: Check, check_repeated: Check
) -> int:
    """Kill the command at each of its points, in a copy each; return how many there are."""
    folder.mkdir(exist_ok=True)
    last = 0
    while True:
        root = folder / str(last)
        shutil.copytree(template, root)

        def work(root: Path = root) -> None:
            assert _run(root, words) == 0

        finished = survives(work, last)
        check_killed(root)
        check_repeated(root)
        shutil.rmtree(root)
        if finished:
            return last
        last += 1


def _run(root: Path, words: str) -> int:
    return main([*words.format(root=root).split(), "--bank", str(root)])


def _check_fetched(root: Path) -> None:
    registry = Registry.open(root / "registry")
    assert load_bank_backbone(registry).fingerprint == registry.backbone().fingerprint
    assert registry.verify() == ()
    assert _leftovers(root) == []


def _leftovers(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.name.startswith(TEMPORARY))


def _ordered(history: tuple[Event, ...]) -> bool:
    return [event.step for event in history] == list(range(1, len(history) + 1))
