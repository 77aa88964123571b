"""What a bank answers after `pull` into an empty clone, and after a checkout or `gc`."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from adapterbank.bank.bank import Bank
from adapterbank.bank.gc import collect_waste
from adapterbank.bank.keep import keep_versions
from adapterbank.inference.predictor import Predictor
from adapterbank.registry.store import Registry
from adapterbank.sync.remote import pull, push
from adapterbank.sync.status import find_discrepancies
from tests import s3, served
from tests.cli_samples import draw
from tests.dvc_samples import clone, commit, copy, dvc, make_dvc_bank, run

# One process answers many references: it is the start that takes seconds.
_PREDICT = """
import sys
from adapterbank.__main__ import main

bank, images, *refs = sys.argv[1:]
sys.exit(max(main(["predict", "--bank", bank, "--json", "--task", ref, images]) for ref in refs))
"""


# Opens one version, waits for the end of its input, then answers with that and with others.
_READ = """
import sys
from contextlib import nullcontext
from pathlib import Path
from adapterbank import Predictor

root, images = sys.argv[1], sorted(Path(sys.argv[2]).iterdir())
predictor = Predictor(root)
answer = lambda ref: predictor.predict(images, task=ref)[-1]
before = answer("digits@1")
print("digits@1 is open", flush=True)
sys.stdin.read()
assert answer("digits@1").top_k == before.top_k
found = [answer(ref) for ref in ("digits@1", "digits@2", "textures@1")]
print(*(f"{one.task}@{one.version}" for one in found))
"""
REFS = ("digits", "textures@1")
Rows: TypeAlias = list[dict[str, Any]]


def fill(root: Path) -> Registry:
    registry = served.new_registry(root)
    served.publish(registry, "digits", seed=1)
    served.publish(registry, "textures", seed=2, method="vpt_deep", classes=("red", "blue"))
    for task in registry.tasks():
        registry.promote(f"{task}@1", expected=None)
    return registry


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        draw(folder / f"{number}.png", (40, 100 * number, 90), number)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a committed bank that really answers, and that nobody changes."""
    root = tmp_path_factory.mktemp("made") / "a bänk"
    make_dvc_bank(root, fill)
    return root


@pytest.fixture(scope="module")
def expected(made: Path, images: Path) -> Rows:
    """Return what it answers."""
    return answers(Registry.open(made / "registry"), images)


@pytest.fixture
def registry(made: Path, tmp_path: Path) -> Registry:
    """Return such a bank of the test's own."""
    return copy(made, tmp_path / "own")


def answers(registry: Registry, images: Path) -> Rows:
    """Predict in a process of its own; all of the JSON but how long it took."""
    done = subprocess.run(
        [sys.executable, "-c", _PREDICT, str(registry.root.parent), str(images), *REFS],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows: Rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 3 * len(REFS)
    assert all(row.pop("latency_ms") > 0 for row in rows)
    return rows


def predict(registry: Registry, images: Path, task: str) -> list[tuple[object, ...]]:
    """Predict by a predictor that has loaded nothing yet."""
    found = Predictor(registry).predict(sorted(images.iterdir()), task=task)
    return [(one.version, one.digest, one.label, one.probability, one.top_k) for one in found]


def branch_of(root: Path) -> str:
    return run(root, "git", "branch", "--show-current").strip()


@pytest.mark.parametrize("remote", ["folder", "s3"])
def test_a_pulled_clone_gives_the_same_answers_bit_for_bit(
    registry: Registry, images: Path, expected: Rows, tmp_path: Path, remote: str
) -> None:
    with s3.serve() as store:
        if remote == "s3":
            store.use(registry.root.parent)
        push(registry)
        theirs = clone(registry.root.parent, tmp_path / "own" / "clone")
        pull(theirs)
        assert bool(store.keys()) == (remote == "s3")
    assert answers(theirs, images) == expected


def test_a_checkout_of_an_older_commit_brings_the_bank_of_that_commit_back(
    registry: Registry, images: Path
) -> None:
    root = registry.root.parent
    branch, older = branch_of(root), predict(registry, images, "digits")
    new = served.publish(registry, "digits", seed=3)
    registry.promote("digits@2", expected=1)
    assert keep_versions(registry, "digits") is None
    commit(root)
    newer = predict(registry, images, "digits")
    assert newer != older

    run(root, "git", "checkout", "--quiet", "HEAD~1")
    dvc(root, "checkout", "--quiet")

    assert registry.aliases("digits") == {"champion": 1}
    assert predict(registry, images, "digits") == older
    assert registry.verify() == ()
    assert {one.place for one in find_discrepancies(registry)} == {"remote", "mlflow"}
    assert not new.path.exists()  # DVC keeps it in its cache
    assert collect_waste(Bank.open(root), dry_run=False) == ()

    run(root, "git", "checkout", "--quiet", branch)
    dvc(root, "checkout", "--quiet")

    assert registry.aliases("digits") == {"champion": 2, "previous": 1}
    assert predict(registry, images, "digits") == newer
    assert registry.verify() == ()


@pytest.mark.parametrize("task", ["digits", "wood"], ids=["known task", "new task"])
def test_what_dvc_does_not_keep_outlives_a_checkout_and_gc(registry: Registry, task: str) -> None:
    root, branch = registry.root.parent, branch_of(registry.root.parent)
    new = served.publish(registry, task, seed=3)  # and nobody tells DVC
    run(root, "git", "add", "registry/aliases")
    run(root, "git", "commit", "--quiet", "--message", "a version")

    run(root, "git", "checkout", "--quiet", "HEAD~1")
    with nullcontext() if task == "wood" else pytest.raises(AssertionError):
        dvc(root, "checkout", "--quiet")  # it would delete what it cannot bring back, and refuses

    (problem,) = registry.verify()
    assert (problem.kind, problem.path) == ("orphan", new.path)
    (waste,) = collect_waste(Bank.open(root), dry_run=False)
    assert waste.needed_by is not None
    assert waste.needed_by.startswith("commit ")
    run(root, "git", "checkout", "--quiet", branch)
    assert registry.read(new)
    assert registry.verify() == ()


def test_gc_takes_nothing_from_a_reader_in_another_process(
    registry: Registry, images: Path
) -> None:
    first = registry.resolve("digits@1")
    registry.retire("textures")
    served.publish(registry, "digits", seed=4)  # without an alias
    orphan = registry.root / "adapters" / "digits" / ("0" * 64)
    orphan.mkdir()
    leftover = registry.root / "adapters" / "digits" / ".tmp-half"
    leftover.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", _READ, str(registry.root), str(images)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as reader:  # fmt: skip
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "digits@1 is open\n"
        gone = collect_waste(Bank.open(registry.root.parent), dry_run=False)
        assert [waste.path for waste in gone] == [leftover]
        reader.stdin.close()
        # What it had opened, what it opens first after gc, and a version of a removed task.
        assert reader.stdout.read() == "digits@1 digits@2 textures@1\n"
    assert reader.returncode == 0
    assert registry.read(first)
