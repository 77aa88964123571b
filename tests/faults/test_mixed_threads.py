"""64 threads promote, evict, load and predict at once: no wrong answer, and memory stays flat.

A minute by ``MIXED_THREADS_S=60``; 20 seconds otherwise.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from adapterbank.errors import ConflictError
from adapterbank.inference.predictor import Predictor
from adapterbank.records import Prediction
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from tests import served
from tests.served import picture

SECONDS = float(os.environ.get("MIXED_THREADS_S", "20"))
WARM_UP = 0.3  # of the time
PICTURES = tuple(picture(seed) for seed in range(4))
METHODS = ("vapt", "vpt_deep", "vapt", "vpt_shallow", "linear", "vapt")
VERSIONS = 8
# Threads: two predict for each one that moves aliases, and there are evictors in between.
ROLES = ("mixed", "single", "mixed", "promote", "mixed", "single", "load", "evict") * 8

Answers = dict[tuple[str, int], dict[str, float]]
"""Probabilities by digest and picture, answered before the race."""

pytestmark = [
    pytest.mark.timeout(SECONDS + 200),
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc"),
]


@dataclass
class Race:
    """What the threads share."""

    registry: Registry
    predictor: Predictor
    versions: tuple[Version, ...]
    answers: Answers
    over: threading.Event = field(default_factory=threading.Event)
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    counting: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        """Count something that was done."""
        with self.counting:
            self.done[what] += 1

    def check(self, answer: Prediction, picture_index: int, asked: Version | str) -> None:
        """Compare an answer with the one of its digest, and its digest with what was asked."""
        if isinstance(asked, Version):
            assert (answer.task, answer.version, answer.digest) == (
                asked.task, asked.version, asked.digest,
            )  # fmt: skip
        else:
            assert answer.task == asked
        expected = self.answers[answer.digest, picture_index]
        # fp32: products of other shapes sum in another order.
        assert dict(answer.top_k) == pytest.approx(expected, abs=1e-5)

    def choose(self, generator: np.random.Generator) -> tuple[str, Version | str]:
        """Draw a reference: an alias that moves, a number or a digest."""
        version = self.versions[int(generator.integers(len(self.versions)))]
        form = int(generator.integers(3))
        if form == 0:
            return version.task, version.task
        ref = str(version) if form == 1 else f"{version.task}@sha256:{version.digest}"
        return ref, version


def mixed(race: Race, generator: np.random.Generator) -> None:
    count = int(generator.integers(2, 7))
    asked = [race.choose(generator) for _ in range(count)]
    shown = [int(i) for i in generator.integers(len(PICTURES), size=count)]
    found = race.predictor.predict(
        [PICTURES[i] for i in shown], tasks=[ref for ref, _ in asked], top_k=9, batch_size=4
    )
    for answer, index, (_, what) in zip(found, shown, asked, strict=True):
        race.check(answer, index, what)
    of_an_alias = {
        (a.task, a.digest) for a, (_, w) in zip(found, asked, strict=True) if w == a.task
    }
    assert len(of_an_alias) == len({task for task, _ in of_an_alias})  # one version a call


def single(race: Race, generator: np.random.Generator) -> None:
    ref, what = race.choose(generator)
    index = int(generator.integers(len(PICTURES)))
    (answer,) = race.predictor.predict([PICTURES[index]], task=ref, top_k=9)
    race.check(answer, index, what)


def promote(race: Race, generator: np.random.Generator) -> None:
    version = race.versions[int(generator.integers(len(race.versions)))]
    held = race.registry.resolve(version.task).version
    try:
        race.registry.promote(str(version), expected=held)
    except ConflictError:
        race.count("lost")


def load(race: Race, generator: np.random.Generator) -> None:
    ref, what = race.choose(generator)
    version, loaded = race.predictor.load(ref)
    assert loaded.config.task == version.task
    assert not isinstance(what, Version) or version == what


def evict(race: Race, generator: np.random.Generator) -> None:
    version = race.versions[int(generator.integers(len(race.versions)))]
    if race.predictor.residents.evict(version.digest):
        race.count("evicted")


STEPS: dict[str, Callable[[Race, np.random.Generator], None]] = {
    "mixed": mixed, "single": single, "promote": promote, "load": load, "evict": evict,
}  # fmt: skip


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> Race:
    registry = served.new_registry(tmp_path_factory.mktemp("threads") / "registry")
    versions = []
    for number, method in enumerate(METHODS):
        classes = tuple("abcdefgh"[: number + 2])
        hyper = {} if method == "linear" else {"prompts": 2 + number}
        versions += [
            served.publish(
                registry, f"task{number}", 10 * number + seed,
                method=method, classes=classes, hyper=hyper,
            )
            for seed in range(VERSIONS)
        ]  # fmt: skip
        registry.promote(f"task{number}@1", expected=None)
    alone = Predictor(registry)
    answers: Answers = {}
    for version in versions:
        found = alone.predict(PICTURES, task=str(version), top_k=9)
        answers |= {(version.digest, i): dict(answer.top_k) for i, answer in enumerate(found)}
    told = {tuple(sorted(expected.items())) for expected in answers.values()}
    assert len(told) == len(answers)  # so that a wrong version is noticed
    budget = alone.residents.residency().nbytes // 2
    return Race(registry, Predictor(registry, budget_bytes=budget), tuple(versions), answers)


def run(race: Race, number: int, role: str) -> None:
    """Repeat a role until the race is over; nobody goes on after a failure."""
    generator = np.random.default_rng(number)
    try:
        while not race.over.is_set():
            STEPS[role](race, generator)
            race.count(role)
            if role in {"promote", "evict"}:
                time.sleep(0.02)  # else they take the processor from those that answer
    except BaseException:  # noqa: BLE001  # reported by the test
        race.failures.append(f"{role}: {traceback.format_exc()}")
        race.over.set()


def resident_mib() -> float:
    """Memory of this process, without what the allocator holds back."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture(scope="module")
def memory(race: Race) -> tuple[float, float]:
    """Run the race; memory after its warm-up and at its end."""
    threads = [
        threading.Thread(target=run, args=(race, number, role), daemon=True)
        for number, role in enumerate(ROLES)
    ]
    for thread in threads:
        thread.start()
    race.over.wait(SECONDS * WARM_UP)
    warm = resident_mib()
    race.over.wait(SECONDS * (1.0 - WARM_UP))
    end = resident_mib()
    race.over.set()
    deadline = time.monotonic() + 60.0
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
    assert not any(thread.is_alive() for thread in threads)
    return warm, end


def test_every_answer_is_of_the_version_asked_for_and_its_own(
    race: Race, memory: tuple[float, float]
) -> None:
    del memory
    assert race.failures == []
    assert len(ROLES) == 64
    for role in STEPS:
        assert race.done[role] >= 8 * SECONDS / 20, (role, race.done)


def test_versions_came_and_went_meanwhile(race: Race, memory: tuple[float, float]) -> None:
    del memory
    now = race.predictor.residents.residency()
    assert now.loads >= now.evictions >= 50
    assert race.done["evicted"] >= 1  # by hand: the rest by the budget
    assert now.readers == 0
    assert now.nbytes <= now.budget_bytes


def test_memory_stays_flat(memory: tuple[float, float]) -> None:
    warm, end = memory
    assert end <= 1.05 * warm + 8.0, memory
