"""Versions whose bytes are what their digest says, and whose content is anything: a hostile one's.

Each reader of a version gives an answer or an IntegrityError of that version, and goes on with the
others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from adapterbank.errors import InputError, IntegrityError, UnknownName
from adapterbank.inference.artifact import load_adapter
from adapterbank.inference.champions import read_routing
from adapterbank.records import Score
from adapterbank.registry.checks import check_sound
from adapterbank.registry.store import Registry
from adapterbank.registry.summary import list_tasks, score_of, summarise
from adapterbank.registry.verdicts import (
    Comparison,
    Verdict,
    parse_verdict,
    standing_refusal,
    verdict_tags,
)
from adapterbank.registry.versions import Version
from adapterbank.routing.storage import pack_router, unpack_router
from adapterbank.text import percent
from tests import served
from tests.routing_samples import World, built

JSON_FILES = ("adapter_config.json", "metrics.json")
TENSOR_FILES = ("adapter_model.safetensors", "canary.safetensors", "routing.safetensors")
VALUES: tuple[str, ...] = (
    "null", "true", "-1", "0", "3", "1e999", "NaN", "-Infinity", "1" * 4000, "1" * 5000, "0.5",
    '""', '"x"', '"\\ud800"', "[]", "{}", '[1, "a"]', '{"correct": "x", "total": "y"}',
    '{"correct": 3, "total": 2}', "[" * 60 + "]" * 60, "[" * 5000 + "]" * 5000, '{"a": 1, "a": 2}',
)  # fmt: skip
KINDS = ("bool", "int8", "uint16", "int64", "uint64", "float16", "float64", "complex64")
PLACE = "@@"


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    return [path] + [place for key, item in items for place in places(item, (*path, key))]


@st.composite
def changed_json(draw: st.DrawFn, data: bytes) -> bytes:
    """Put anything in one place of a JSON document, or take the place away."""
    content = json.loads(data)
    path = draw(st.sampled_from(places(content)))
    value = draw(st.sampled_from((*VALUES, None)))
    if not path:
        return (value or "").encode()
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    if value is None:
        del parent[path[-1]]
    else:
        parent[path[-1]] = PLACE
    return json.dumps(content).replace(f'"{PLACE}"', value or "").encode()


@st.composite
def changed_tensors(draw: st.DrawFn, data: bytes) -> bytes:
    """Make one tensor another one: its kind, shape, values or name; or take it away."""
    tensors = dict(load(data))
    name = draw(st.sampled_from(sorted(tensors)))
    tensor = tensors.pop(name)
    change = draw(st.sampled_from(("kind", "shape", "name", "none", "huge", "zero", "negative")))
    if change == "kind":
        tensor = tensor.astype(draw(st.sampled_from(KINDS)))
    elif change == "shape":
        tensor = np.resize(tensor, draw(st.lists(st.integers(0, 5), max_size=4)))
    elif change == "huge":
        limits = np.finfo if tensor.dtype.kind == "f" else np.iinfo
        tensor = np.full_like(tensor, limits(tensor.dtype).max)
    elif change in ("zero", "negative"):
        tensor = np.full_like(tensor, 0 if change == "zero" else -1)
    if change != "none":
        tensors["other" if change == "name" else name] = np.ascontiguousarray(tensor)
    return save(tensors)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Return a registry with one sound task."""
    registry = served.new_registry(tmp_path_factory.mktemp("hostile") / "registry")
    served.publish(registry, "bugs")
    registry.promote("bugs@1", expected=None)
    return registry


READERS: dict[str, Callable[[Registry, Version], object]] = {
    "predict": lambda registry, version: load_adapter(
        registry.read(version), served.backbone(), where=str(version)
    ),
    "show": lambda _, version: shown(version),
    "route": lambda _, version: route(version),
    "register": lambda registry, version: check_sound(
        "odd", registry.read(version), registry.backbone(), where="it"
    ),
}


def shown(version: Version) -> list[str]:
    """Write what a version says of itself, as the commands do."""
    summary = summarise(version)
    scores = [score_of(summary.metrics, *path) for path in (("val",), ("linear_probe", "test"))]
    counts = "{} {}".format(*summary.parameters or (0, 0))
    return [counts, *(percent(s.correct, s.total) for s in scores if s is not None)]


def check_readers(registry: Registry, files: Mapping[str, bytes]) -> None:
    """Let everybody read the hostile version, and everything else around it."""
    version = served.smuggle(registry, "odd", files)
    for read in READERS.values():
        with suppress(IntegrityError):
            read(registry, version)
    sound, _ = list_tasks(registry)
    assert (sound.task, sound.problem) == ("bugs", None)
    assert {problem.task for problem in registry.verify()} <= {"odd"}


def route(version: Version) -> None:
    """Read what a router is built from; a record of an earlier layout is no damage."""
    with suppress(InputError):
        read_routing(version)


fuzzed = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=40,
    deadline=None,
)


@pytest.mark.parametrize("name", JSON_FILES)
@fuzzed
@given(data=st.data())
def test_any_value_anywhere_in_a_document_is_read_or_an_integrity_error(
    registry: Registry, name: str, data: st.DataObject
) -> None:
    files = registry.read(registry.resolve("bugs"))
    check_readers(registry, {**files, name: data.draw(changed_json(files[name]))})


@pytest.mark.parametrize("name", TENSOR_FILES)
@fuzzed
@given(data=st.data())
def test_any_tensor_of_any_kind_is_read_or_an_integrity_error(
    registry: Registry, name: str, data: st.DataObject
) -> None:
    files = registry.read(registry.resolve("bugs"))
    check_readers(registry, {**files, name: data.draw(changed_tensors(files[name]))})


@pytest.mark.parametrize("name", ["router.json", "router.safetensors"])
@fuzzed
@given(data=st.data())
def test_any_router_is_read_or_an_integrity_error(name: str, data: st.DataObject) -> None:
    files = pack_router(built(World().records(2)))
    change = changed_json if name.endswith("json") else changed_tensors
    hostile = {**files, name: data.draw(change(files[name]))}
    with suppress(IntegrityError), np.errstate(all="ignore"):
        router = unpack_router(hostile, where="router@1")
        shape = (3, len(router.blocks), router.width)
        assert len(router.route(np.random.default_rng(0).standard_normal(shape))) == 3


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Return a registry of two tasks, one of them with a verdict in its history."""
    registry = served.new_registry(tmp_path_factory.mktemp("judged") / "registry")
    for task in ("bugs", "odd"):
        served.publish(registry, task)
        registry.promote(f"{task}@1", expected=None)
    comparison = Comparison(test="mcnemar", p=0.5, difference=-0.1, interval=(-0.2, 0.1))
    verdict = Verdict(task="odd", version=1, champion=None, outcome="refused", reason="worse",
                      challenger_val=Score(correct=1, total=2), comparison=comparison)  # fmt: skip
    registry.record_verdict("odd@1", verdict.as_json())
    return registry


def told(registry: Registry) -> None:
    """Read all that a task's record says, as the commands do."""
    registry.overview("odd")
    registry.resolve("odd")
    history = registry.history("odd")
    for event in history:
        event.as_json()
        verdict = parse_verdict(event.verdict)
        assert verdict is None or verdict.short()
    verdict_tags(history, 1)
    standing_refusal(history, 1)


@fuzzed
@given(data=st.data())
def test_any_value_anywhere_in_a_record_is_read_or_an_integrity_error(
    judged: Registry, data: st.DataObject
) -> None:
    path = judged.root / "aliases" / "odd.json"
    sound = path.read_bytes()
    path.write_bytes(data.draw(changed_json(sound)))
    try:
        with suppress(IntegrityError, UnknownName):
            told(judged)
        assert [row.task for row in list_tasks(judged)] == ["bugs", "odd"]
        assert {problem.task for problem in judged.verify()} <= {"odd"}
        assert judged.resolve("bugs").version == 1
    finally:
        path.write_bytes(sound)
