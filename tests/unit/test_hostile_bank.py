"""One hostile champion in a bank: everybody goes on with the others and says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from adapterbank.bank.bank import Bank
from adapterbank.config.bank import parse_config
from adapterbank.continual.audit import audit
from adapterbank.errors import IntegrityError
from adapterbank.inference.loads import check_loads
from adapterbank.inference.predictor import Predictor
from adapterbank.registry.summary import list_tasks, summarise
from adapterbank.report.overview import collect
from adapterbank.report.page import render_page
from adapterbank.sync.status import find_discrepancies
from tests import served
from tests.cli_samples import PARAMS

Files = dict[str, bytes]


def logits(kind: type[np.generic]) -> bytes:
    return save({"logits": np.zeros((2, 4), dtype=kind)})


def configured(change: Callable[[dict[str, object]], object]) -> Callable[[Files], Files]:
    def changed(files: Files) -> Files:
        config = json.loads(files["adapter_config.json"])
        change(config)
        return {"adapter_config.json": json.dumps(config).encode()}

    return changed


HOSTILE: dict[str, Callable[[Files], Files]] = {
    "bool-canary": lambda _: {"canary.safetensors": logits(np.bool_)},
    "uint16-canary": lambda _: {"canary.safetensors": logits(np.uint16)},
    "words-for-counts": lambda _: {"metrics.json": b'{"test": {"correct": "x", "total": "y"}}'},
    "more-right-than-all": lambda _: {"metrics.json": b'{"val": {"correct": 9, "total": 1}}'},
    "4000-digits": lambda _: {
        "metrics.json": b'{"test": {"correct": %s, "total": 1}}' % (b"9" * 4000)
    },
    "deep": lambda _: {"metrics.json": b'{"a":' * 900 + b"1" + b"}" * 900},
    "list": lambda _: {"metrics.json": b"[]"},
    "another-task": configured(lambda config: config.update(task="bugs")),
    "unknown-method": configured(lambda config: config.update(method={"name": "x", "hyper": {}})),
    "twice-a-class": configured(lambda config: config.update(classes=["a", "a", "b", "c"])),
    "another-input": configured(
        lambda config: config.update(input={**asdict(served.SPEC), "size": [1, 1]})
    ),
}


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """Return a bank with one sound champion."""
    registry = served.new_registry(tmp_path / "registry")
    served.publish(registry, "bugs")
    registry.promote("bugs@1", expected=None)
    return Bank(root=tmp_path, config=parse_config(PARAMS, where="it"), registry=registry)


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_one_hostile_champion_stops_nobody_else(
    bank: Bank, change: Callable[[Files], Files]
) -> None:
    sound = bank.registry.read(bank.registry.resolve("bugs"))
    named = configured(lambda config: config.update(task="odd"))(sound)
    odd = served.smuggle(bank.registry, "odd", {**sound, **named, **change({**sound, **named})})

    (problem,) = bank.registry.verify(load=check_loads)
    assert (problem.kind, problem.task) == ("damaged", "odd")

    report = audit(bank)
    assert [version.name for version in report.failed] == ["odd@1"]
    assert len(report.versions) == 2

    predictor = Predictor(bank.registry)
    assert len(predictor.predict([served.picture(1)], task="bugs")) == 1

    assert [row.task for row in list_tasks(bank.registry)] == ["bugs", "odd"]
    assert "registry" in {item.place for item in find_discrepancies(bank.registry)}
    assert b"odd" in render_page(collect(bank, None, device="cpu"))
    try:
        summarise(odd, whole=True)
    except IntegrityError as error:
        assert str(odd.path) in error.message  # noqa: PT017  # where only its tensors are odd, it is shown


def test_a_version_without_a_canary_is_answered_with_and_not_called_proven(bank: Bank) -> None:
    sound = bank.registry.read(bank.registry.resolve("bugs"))
    named = configured(lambda config: config.update(task="odd"))(sound)
    files = {**sound, **named}
    del files["canary.safetensors"]
    served.smuggle(bank.registry, "odd", files)
    assert len(Predictor(bank.registry).predict([served.picture(1)], task="odd")) == 1
    assert [problem.kind for problem in bank.registry.verify()] == ["unproven"]
    (failed,) = audit(bank).failed
    assert failed.name == "odd@1"
    assert "no canary.safetensors" in (failed.problem or "")


def test_numbers_beyond_what_can_be_computed_with_are_no_answer(bank: Bank) -> None:
    sound = bank.registry.read(bank.registry.resolve("bugs"))
    files = {**sound, **configured(lambda config: config.update(task="odd"))(sound)}
    tensors = load(files["adapter_model.safetensors"])
    tensors["head.weight"] = np.full_like(tensors["head.weight"], 3e38)
    files["adapter_model.safetensors"] = save(tensors)
    del files["canary.safetensors"]
    served.smuggle(bank.registry, "odd", files)
    predictor = Predictor(bank.registry)
    with pytest.raises(IntegrityError, match="odd@1 answers image 0 with numbers that are none"):
        predictor.predict([served.picture(1)], task="odd")
    assert len(predictor.predict([served.picture(1)], task="bugs")) == 1


@pytest.mark.parametrize("time", ["", "yesterday", "0001-01-01T00:00:00+23:59", "2026-02-30"])
def test_a_time_of_history_that_is_none_is_of_that_task_alone(bank: Bank, time: str) -> None:
    path = bank.registry.root / "aliases" / "bugs.json"
    sound = bank.registry.read(bank.registry.resolve("bugs"))
    named = configured(lambda config: config.update(task="odd"))(sound)
    served.smuggle(bank.registry, "odd", {**sound, **named})
    path.write_text(path.read_text().replace("2026-01-02T03:04:05Z", time))
    report = audit(bank, before="2027-01-01")
    assert {version.task for version in report.versions} == {"bugs", "odd"}
    assert {version.task for version in report.failed} <= {"bugs"}
