"""An overview of a bank that nobody built, with a word of the test's in every place for words."""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue

from adapterbank.continual.matrix import Champion, Matrix, Step, summary
from adapterbank.records import InputSpec, Score, Traits
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.task_record import Event
from adapterbank.report.overview import (
    ChampionView,
    MatrixView,
    Overview,
    RouterView,
    Storage,
    TaskView,
)
from adapterbank.report.routing import ALPHAS, Confusion, RoutingFigures, Unknown

DIGEST = "ab" * 32


def overview(tasks: tuple[str, ...] = ("reds", "greens"), word: str = "word") -> Overview:
    """Make an overview of tasks; ``word`` stands wherever a bank may hold any text."""
    drawn = steps(tasks)
    return Overview(
        backbone=_backbone(word),
        backbone_bytes=10_000_000,
        newest=word,
        tasks=tuple(_task(task, word) for task in tasks),
        matrix=MatrixView(steps=drawn, summary=summary(Matrix(steps=drawn)), missing=None),
        router=RouterView(
            version=2, digest=DIGEST, history=(_event(word, 1),), figures=_routing(tasks),
            left_out={word: word}, missing=None,
        ),
        storage=tuple(Storage(name=task, total=4000, served=1000) for task in tasks),
    )  # fmt: skip


def steps(tasks: tuple[str, ...], lost: int = 3) -> tuple[Step, ...]:
    """Make a matrix: tasks come one by one, each later one costs the earlier ones ``lost``."""
    found = []
    for index, task in enumerate(tasks):
        seen = tasks[: index + 1]
        right = {one: max(0, 90 - lost * (index - at)) for at, one in enumerate(seen)}
        found.append(
            Step(
                step=index,
                task=task,
                version=1,
                kind="new domain",
                champions={one: Champion(version=1, digest=DIGEST) for one in seen},
                oracle={one: Score(correct=90, total=100) for one in seen},
                routed={one: Score(correct=right[one], total=100) for one in seen},
                routed_all={one: Score(correct=right[one] + 2, total=100) for one in seen},
                identity={one: Score(correct=right[one] + 5, total=100) for one in seen},
                abstained={one: Score(correct=2, total=100) for one in seen},
            )
        )
    return tuple(found)


def write_matrix(path: Path, text: str) -> Path:
    """Write a file of that name, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _backbone(word: str) -> BackboneRecord:
    traits = Traits(width=32, blocks=2, patch=(16, 16), grid=(2, 2), prefix_tokens=1, pool="token",
                    parameters=1000)  # fmt: skip
    return BackboneRecord(uri=word or "-", arch=word or "-", spec=InputSpec(size=(32, 32)),
                          fingerprint=DIGEST, traits=traits)  # fmt: skip


def _task(task: str, word: str) -> TaskView:
    return TaskView(
        task=task,
        versions=2,
        aliases={"champion": 2},
        champion=ChampionView(
            version=2, digest=DIGEST, method=word, classes=(word, word), data=word,
            test=Score(correct=90, total=100), probe=Score(correct=70, total=100),
            parameters=(1000, 20), adapter_bytes=4000,
        ),
        history=(_event(word, 1), _event(word, 2)),
        problem=word,
    )  # fmt: skip


def _event(word: str, step: int) -> Event:
    verdict: dict[str, JsonValue] = {
        "task": word, "outcome": word, "reason": f"{word}!", word: {word: word},
        "challenger_val": {"correct": 1, "total": 2}, "p": 0.03125, "listed": [0.5, word],
    }  # fmt: skip
    return Event(
        step=step, action="promote", alias=word, from_version=None, to_version=1, digest=DIGEST,
        actor=word, reason=word, time=word, verdict=verdict,
    )  # fmt: skip


def _routing(tasks: tuple[str, ...]) -> RoutingFigures:
    rows = [tuple(90 if one == task else 0 for one in tasks) for task in tasks]
    return RoutingFigures(
        tasks=tasks,
        alpha=0.05,
        confusion=tuple(
            Confusion(task=task, chosen=row, abstained=10, ambiguous=1)
            for task, row in zip(tasks, rows, strict=True)
        ),
        known_curve=ALPHAS,
        unknown=tuple(Unknown(task=task, abstained=1, total=2, auroc=0.9) for task in tasks),
        unknown_curve=tuple(2 * alpha for alpha in ALPHAS),
    )
