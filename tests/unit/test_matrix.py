"""The accuracy matrix as a file and as R: what it takes, what it refuses, what is made of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbank.config.bank import TaskConfig
from adapterbank.continual.matrix import (
    FIGURES,
    MATRIX,
    Champion,
    Matrix,
    Step,
    arrivals,
    kind_of,
    matrix_of,
    read_matrix,
    summary,
    write_matrix,
)
from adapterbank.errors import IntegrityError
from adapterbank.records import Score

TASKS = ("a", "b", "c", "d", "e")


def champion(task: str, version: int = 1) -> Champion:
    """Make a champion whose digest nobody else has."""
    return Champion(version=version, digest=f"{TASKS.index(task)}{version:063x}")


def counts(given: Mapping[str, int]) -> dict[str, Score]:
    """So many of ten images, by task."""
    return {task: Score(correct=count, total=10) for task, count in given.items()}


def step(
    place: int,
    task: str,
    oracle: Mapping[str, int],
    routed: Mapping[str, int] | None = None,
    version: int = 1,
) -> Step:
    """Make a step whose router finds one more than it answers right, and rejects one of these."""
    found = oracle if routed is None else routed
    served = {name: champion(name, version if name == task else 1) for name in oracle}
    return Step(
        step=place,
        task=task,
        version=version,
        kind="new task" if version == 1 else "new version",
        champions=served,
        oracle=counts(oracle),
        routed=counts({name: max(0, right - 1) for name, right in found.items()}),
        routed_all=counts(found),
        identity=counts({name: min(10, right + 1) for name, right in found.items()}),
        abstained=counts(dict.fromkeys(found, 1)),
    )


def matrix(*steps: Step) -> Matrix:
    return Matrix(steps=steps)


# a is learned, then b, then a new version of a; the router loses some of a to b.
HAND = matrix(
    step(0, "a", {"a": 8}),
    step(1, "b", {"a": 8, "b": 6}, {"a": 6, "b": 6}),
    step(2, "a", {"a": 9, "b": 6}, {"a": 9, "b": 5}, version=2),
)


def test_what_is_written_is_read_and_a_step_is_a_line(tmp_path: Path) -> None:
    first = write_matrix(tmp_path, matrix(*HAND.steps[:2]))
    second = write_matrix(tmp_path, HAND)
    assert read_matrix(tmp_path) == HAND
    old, new = first.decode().splitlines(), second.decode().splitlines()
    assert old[1:-3] == new[1:-4]
    assert new[-4].rstrip(",") == old[-3]
    assert list(json.loads(second)) == ["schema", "steps"]


def test_a_line_says_only_what_is_not_as_it_was(tmp_path: Path) -> None:
    content = json.loads(write_matrix(tmp_path, HAND))
    assert content["schema"] == 3
    assert content["steps"][1] == {
        "step": 1,
        "task": "b",
        "version": 1,
        "kind": "new task",
        "champions": {"b": {"version": 1, "digest": champion("b").digest}},
        "oracle": {"b": [6, 10]},
        "routed": {"a": [5, 10], "b": [5, 10]},
        "routed_all": {"a": [6, 10], "b": [6, 10]},
        "identity": {"a": [7, 10], "b": [7, 10]},
        "abstained": {"b": [1, 10]},
    }


def test_what_is_gone_is_null(tmp_path: Path) -> None:
    gone = matrix(
        step(0, "a", {"a": 8}),
        replace(step(1, "b", {"a": 8, "b": 6}), carried=("a",)),
        step(2, "c", {"b": 6, "c": 4}),
    )
    line = json.loads(write_matrix(tmp_path, gone))["steps"][2]
    assert [line[name]["a"] for name in ("champions", *FIGURES, "carried")] == [None] * 7
    assert read_matrix(tmp_path) == gone


# As earlier programs wrote it: `routed` did not ask whether an image is rejected.
EARLIER = matrix(*(replace(one, routed={}) for one in HAND.steps))


def test_what_earlier_programs_called_routed_is_read_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    whole = [{**one.as_json(), "routed": one.as_json()["routed_all"]} for one in HAND.steps]
    for line in whole:
        del line["routed_all"]
    (tmp_path / MATRIX).write_text(json.dumps({"schema": 1, "steps": whole}))
    assert read_matrix(tmp_path) == EARLIER
    content = json.loads(write_matrix(tmp_path, EARLIER))
    assert content["schema"] == 3
    assert read_matrix(tmp_path) == EARLIER
    for line in content["steps"]:
        line["routed"] = line.pop("routed_all")
    (tmp_path / MATRIX).write_text(json.dumps({"schema": 2, "steps": content["steps"]}))
    assert read_matrix(tmp_path) == EARLIER


def test_the_course_of_what_users_get_begins_where_it_was_first_counted() -> None:
    again = replace(HAND.steps[1], step=3, task="b", version=2, kind="new version", champions={
        "a": champion("a"), "b": champion("b", 2)})  # fmt: skip
    longer = matrix(*EARLIER.steps, again)
    found = matrix_of(longer, "routed")
    assert found is not None
    assert (found.steps, found.learned) == (1, ((0,), (0,)))
    figures = summary(longer)
    assert figures["routed"]["average"] == pytest.approx(0.5)
    assert figures["routed_all"]["average"] == pytest.approx(0.6)
    assert "routed" not in summary(EARLIER)


@given(data=st.data())
def test_any_matrix_is_read_as_it_was_written(data: st.DataObject) -> None:
    steps = []
    for place in range(data.draw(st.integers(1, 5))):
        served = data.draw(st.sets(st.sampled_from(TASKS), min_size=1).map(sorted))
        right = {task: data.draw(st.integers(0, 9)) for task in served}
        routed = {task: right[task] for task in served if data.draw(st.booleans())}
        carried = tuple(task for task in routed if data.draw(st.booleans()))
        task = data.draw(st.sampled_from(served))
        steps.append(replace(step(place, task, right, routed), carried=carried))
    with TemporaryDirectory() as folder:
        write_matrix(Path(folder), matrix(*steps))
        assert read_matrix(Path(folder)) == matrix(*steps)


@pytest.mark.slow
def test_a_thousand_tasks_learned_one_after_the_other_take_under_2_megabytes(
    tmp_path: Path,
) -> None:
    generator = np.random.default_rng(0)
    names = [f"task-{place:04}" for place in range(1000)]
    steps: list[Step] = []
    routed: dict[str, Score] = {}
    for place, name in enumerate(names):
        # The router takes an image each from a dozen tasks that look like the new one.
        taken = generator.choice(place, 12) if place else ()
        less = {
            names[i]: Score(correct=max(0, routed[names[i]].correct - 1), total=200) for i in taken
        }
        routed = {**routed, **less, name: Score(correct=150, total=200)}
        champions = {other: Champion(version=1, digest=f"{0:064x}") for other in routed}
        steps.append(
            Step(
                step=place,
                task=name,
                version=1,
                kind="new task",
                champions=champions,
                oracle={other: Score(correct=160, total=200) for other in routed},
                routed=routed,
                routed_all=routed,
                identity=routed,
                abstained={other: Score(correct=8, total=200) for other in routed},
            )
        )
    assert len(write_matrix(tmp_path, matrix(*steps))) < 2_000_000
    again = read_matrix(tmp_path)
    assert again.steps[-1] == steps[-1]
    begun = time.process_time()
    figures = summary(again)
    assert time.process_time() - begun < 10.0
    assert figures["routing"]["interference"][names[0]] > 0


def test_a_bank_that_released_nothing_has_an_empty_matrix(tmp_path: Path) -> None:
    assert read_matrix(tmp_path) == Matrix(steps=())
    assert summary(Matrix(steps=())) == {"steps": 0, "tasks": 0}
    assert matrix_of(Matrix(steps=()), "oracle") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"step": 1', '"step": 2', "step 1: says it is step 2"),
        ('"schema": 3', '"schema": 7', "schema 7, which this release cannot read"),
        ('"task": "b"', '"task": "c"', "c@1 is none of its champions"),
        ("[8, 10]", "[11, 10]", "oracle.a: 11 of 10"),
        ("[8, 10]", "[-1, 10]", "greater than or equal to 0"),
        ("[8, 10]", '["8", 10]', "valid integer"),
        ("[8, 10]", "[8, 0]", "greater than or equal to 1"),
        ('"abstained": {"a"', '"abstained": {"e"', "a has not all figures"),
        ('"oracle": {"b"', '"oracle": {"B"', "oracle.B: it was not served"),
        (
            '"identity": {"a": [9, 10]',
            '"identity": {"a": [7, 10]',
            "routed_all.a: more images than",
        ),
        ('"routed": {"a": [7, 10]', '"routed": {"a": [9, 10]', "routed.a: more images than"),
        ('"abstained"', '"aloof"', "aloof"),
        ('"steps"', '"stages"', "steps: Field required"),
        ("}", "", "not JSON"),
    ],
)
def test_a_matrix_that_cannot_be_is_refused_with_its_place(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / MATRIX
    write_matrix(tmp_path, HAND)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(IntegrityError, match=message) as caught:
        read_matrix(tmp_path)
    assert "matrix.json" in caught.value.message
    assert caught.value.fix is not None


def test_an_earlier_matrix_that_cannot_be_is_refused(tmp_path: Path) -> None:
    wrong = step(0, "a", {"a": 8})
    lines = wrong.as_json() | {"identity": {"a": {"correct": 6, "total": 10}}}
    (tmp_path / "reports").mkdir()
    (tmp_path / MATRIX).write_text(json.dumps({"schema": 1, "steps": [lines]}))
    with pytest.raises(IntegrityError, match=r"routed_all\.a: more images than identity"):
        read_matrix(tmp_path)


def test_the_metrics_of_a_bank_that_learned_a_task_anew() -> None:
    found = summary(HAND)
    assert (found["steps"], found["tasks"]) == (3, 2)
    assert found["oracle"] == pytest.approx(
        {
            "average": 0.75,
            "average/micro": 0.75,
            "average/incremental": (0.8 + 0.7 + 0.75) / 3,
            # Only b is old: a was learned anew by the last step.
            "forgetting/chaudhry": 0.0,
            "forgetting/clamped": 0.0,
            "forgetting/first": 0.0,
            "bwt/gem": 0.0,
            "bwt/all_pairs": 0.0,
            "renewal": 0.1,
        }
    )
    routed = found["routed"]
    assert routed["forgetting/first"] == pytest.approx(0.1)  # b: from 6 to 5
    assert routed["bwt/all_pairs"] == pytest.approx((-0.2 - 0.1) / 2)  # a at step 1, b at step 2
    assert routed["renewal"] == pytest.approx(0.3)
    assert routed["intransigence"] == pytest.approx(((0.9 - 0.8) + (0.6 - 0.5)) / 2)
    routing = found["routing"]
    assert routing.pop("interference") == pytest.approx({"a": 0.0, "b": 0.7 - 0.6})
    gap = ((0.9 - 0.8) + (0.6 - 0.4)) / 2
    assert routing == pytest.approx(
        {"task_identity": 0.8, "oracle_gap": gap, "false_abstention": 0.1}
    )


def test_isolated_adapters_forget_exactly_nothing_whatever_the_router_does() -> None:
    found = summary(matrix(*HAND.steps[:2]))
    assert found["oracle"]["forgetting/chaudhry"] == 0.0
    assert found["routed"]["forgetting/chaudhry"] == pytest.approx(0.2)
    assert found["routing"]["interference"] == pytest.approx({"a": 0.9 - 0.7, "b": 0.0})


def test_a_task_that_is_gone_has_no_column_and_one_that_came_back_begins_again() -> None:
    gone = matrix(
        step(0, "a", {"a": 8}), step(1, "b", {"a": 8, "b": 6}), step(2, "c", {"b": 6, "c": 4})
    )
    found = matrix_of(gone, "oracle")
    assert found is not None
    assert (found.tasks, found.learned, found.steps) == (("b", "c"), ((0,), (1,)), 2)
    back = matrix_of(matrix(*gone.steps, step(3, "a", {"a": 8, "b": 6, "c": 4})), "oracle")
    assert back is not None
    assert (back.tasks, back.learned) == (("b", "c", "a"), ((0,), (1,), (2,)))


def test_a_task_that_was_not_measured_at_some_step_begins_where_it_was() -> None:
    found = matrix_of(
        matrix(step(0, "a", {"a": 8}, {}), step(1, "b", {"a": 8, "b": 6})), "routed"
    )  # fmt: skip
    assert found is not None
    assert (found.tasks, found.learned) == (("a", "b"), ((0,), (0,)))


@given(
    order=st.permutations(TASKS),
    cuts=st.sets(st.integers(1, 4)),
    known=st.sets(st.sampled_from(TASKS)),
)
def test_any_division_of_arrivals_into_releases_gives_the_same_moments(
    order: list[str], cuts: set[int], known: set[str]
) -> None:
    before = {task: champion(task) for task in known}
    after = {task: champion(task, 2) for task in order}
    at_once = list(arrivals(before, after, order))
    single: list[tuple[str, dict[str, Champion]]] = []
    standing = dict(before)
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), 5], strict=True):
        standing |= {task: after[task] for task in order[begin:end]}
        last = single[-1][1] if single else before
        single += arrivals(last, standing, order)
    assert single == at_once
    assert [task for task, _ in at_once] == order
    assert at_once[-1][1] == after
    assert list(arrivals(at_once[-1][1], after, order)) == []


def test_what_was_retired_is_not_served_and_is_no_step() -> None:
    before = {"a": champion("a"), "b": champion("b")}
    assert list(arrivals(before, {"b": champion("b")}, ["a", "b"])) == []
    moved = {"b": champion("b"), "c": champion("c")}
    assert list(arrivals(before, moved, [])) == [("c", moved)]


def test_the_kind_of_a_step_is_that_of_the_configuration_and_the_past() -> None:
    plain = TaskConfig(data="x")
    split = TaskConfig(data="x", classes=("one", "two"))
    assert kind_of(plain, known=False) == "new task"
    assert kind_of(None, known=False) == "new task"
    assert kind_of(split, known=False) == "new classes"
    assert kind_of(split.model_copy(update={"domain_of": "y"}), known=False) == "new domain"
    assert kind_of(split, known=True) == "new version"
