"""The program of test_race.py: 16 processes that register, promote, roll back and predict at once.

Run as ``python -m tests.faults.racing FOLDER``. Forks its racers, so that they share the slow
imports, and leaves in FOLDER what each of them did as ``racer-N.json``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adapterbank.errors import ConflictError
from adapterbank.inference.predictor import Predictor
from adapterbank.records import Prediction
from adapterbank.registry.manifest import build_manifest, version_digest
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from tests import served

RACERS = 16
STEPS = 50
PREDICTING = 4  # of the racers, with THREADS each
THREADS = 3
TASK = "dtd"
WAIT_S = 100.0

Answers = dict[str, tuple[object, ...]]
"""What each digest answers, computed before the race by nobody's competitor."""


def main(folder: Path) -> None:
    """Prepare the versions and their answers, then race."""
    versions = [_pack(seed) for seed in range(STEPS + 2)]
    answers = _answers_beforehand(folder / "alone", versions)
    registry = served.new_registry(folder / "registry")
    for files in versions[:2]:
        registry.register(TASK, files, actor="nobody")
    registry.promote(f"{TASK}@1", expected=None, actor="nobody")
    registry.promote(f"{TASK}@2", expected=1, actor="nobody")
    barrier = multiprocessing.get_context("fork").Barrier(RACERS)
    children = [_fork(_racer(folder, i, versions, answers, barrier)) for i in range(RACERS)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(max(map(abs, codes)))


def picture() -> Image.Image:
    """Draw what all of them answer."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (36, 40, 3), dtype=np.uint8))


def moves_at(step: int, racer: int, held: int) -> int | None:
    """Say where a racer wants the champion at a step: another version, or back (None)."""
    if step % 3 == 2 and racer % 2:
        return None  # at every third step, so that there always is a way back
    known = step + 3
    return 1 + (held + (7 * racer + step) % (known - 1)) % known  # any of them but `held`


def _fork(race: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            race()
        except BaseException:  # noqa: BLE001  # the child must end here, whatever happens
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def _racer(
    folder: Path,
    number: int,
    versions: list[dict[str, bytes]],
    answers: Answers,
    barrier: Barrier,
) -> Callable[[], None]:
    def race() -> None:
        registry = Registry.open(folder / "registry")
        over = threading.Event()
        predicting = THREADS if number < PREDICTING else 0
        predictor = Predictor(registry)
        counts, failures = [0] * predicting, list[str]()

        def predict(thread: int) -> None:
            try:
                for _ in _predict(predictor, answers, over, number + thread):
                    counts[thread] += 1
            except BaseException:  # noqa: BLE001  # reported by the racer
                failures.append(traceback.format_exc())

        threads = [threading.Thread(target=predict, args=(i,)) for i in range(predicting)]
        for started in threads:
            started.start()
        try:
            steps = [_step(registry, step, number, versions, barrier) for step in range(STEPS)]
        except BaseException:
            traceback.print_exc()
            barrier.abort()  # the others need not wait for one that failed
            raise
        finally:
            over.set()
            for started in threads:
                started.join()
        assert not failures, failures
        done = {"actor": f"racer{number}", "steps": steps, "predictions": sum(counts)}
        (folder / f"racer-{number}.json").write_text(json.dumps(done))

    return race


def _step(
    registry: Registry, step: int, number: int, versions: list[dict[str, bytes]], barrier: Barrier
) -> dict[str, Any]:
    """Look where the champion is, as all do at once; then all register, and move it."""
    actor = f"racer{number}"
    barrier.wait(WAIT_S)
    held = registry.resolve(TASK).version
    barrier.wait(WAIT_S)  # nobody moves it before everybody has looked
    registered = registry.register(TASK, versions[step + 2], actor=actor)
    assert registered.digest == _digest(versions[step + 2])
    target = moves_at(step, number, held)
    done: dict[str, Any] = {"held": held, "registered": registered.version, "target": target}
    try:
        if target is None:
            move = registry.rollback(TASK, expected=held, actor=actor)
        else:
            move = registry.promote(f"{TASK}@{target}", expected=held, actor=actor)
    except ConflictError as error:
        done |= {"lost": error.message, "code": error.exit_code}
    else:
        assert move.moved
        assert move.event is not None
        done |= {"won": move.after.version, "step": move.event.step}
    for version in (registry.resolve(TASK), registered):
        assert registry.read(version)
    return done


def _predict(
    predictor: Predictor, answers: Answers, over: threading.Event, seed: int
) -> Iterator[None]:
    """Ask in every form a reference has, and compare with what was answered beforehand."""
    generator = np.random.default_rng(seed)
    image = picture()
    while not over.wait(0.002):
        asked = _choose(predictor.registry, int(generator.integers(4)), generator)
        ref = asked if isinstance(asked, str) else f"{TASK}@sha256:{asked.digest}"
        (answer,) = predictor.predict([image], task=ref)
        assert answer.digest == predictor.registry.resolve(f"{TASK}@{answer.version}").digest
        if isinstance(asked, Version):
            assert (answer.digest, answer.version) == (asked.digest, asked.version)
        elif "@" in asked:
            assert answer.version == int(asked.partition("@")[2])
        assert _said(answer) == answers[answer.digest], ref
        yield


def _choose(registry: Registry, form: int, generator: np.random.Generator) -> str | Version:
    if form < 2:
        return TASK  # whatever the champion is at that moment
    versions = registry.versions(TASK)
    version = versions[int(generator.integers(len(versions)))]
    return version if form == 2 else str(version)


def _said(answer: Prediction) -> tuple[object, ...]:
    return answer.label, answer.probability, answer.top_k


def _answers_beforehand(root: Path, versions: list[dict[str, bytes]]) -> Answers:
    registry = served.new_registry(root)
    predictor = Predictor(registry)
    answers: Answers = {}
    for files in versions:
        version = registry.register(TASK, files)
        (answer,) = predictor.predict([picture()], task=str(version))
        answers[version.digest] = _said(answer)
    assert len(set(answers.values())) == len(versions)  # so that a wrong version is noticed
    return answers


def _pack(seed: int) -> dict[str, bytes]:
    made = served.adapter(seed)
    return served.pack(made, served.describe(TASK, made))


def _digest(files: dict[str, bytes]) -> str:
    return version_digest(build_manifest(files))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
