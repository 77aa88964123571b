"""Learning a scenario: the same versions and the same matrix however it was run."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from PIL import Image

from adapterbank.bank.bank import Bank
from adapterbank.bank.features import frozen_split
from adapterbank.config.bank import load_config
from adapterbank.config.params_file import add_task, replace_task
from adapterbank.continual import learn as learning
from adapterbank.continual.learn import Learned, learn
from adapterbank.continual.matrix import FIGURES, MATRIX, read_matrix
from adapterbank.continual.scenario import load_scenario
from adapterbank.continual.steps import CURVE, SUMMARY, TABLE
from adapterbank.data.store import load_task
from adapterbank.errors import AdapterBankError, ConfigError, GateRefused
from adapterbank.inference.predictor import Predictor
from adapterbank.inference.routing import load_router
from adapterbank.integrations.mlflow.runs import find_runs
from adapterbank.integrations.mlflow.store import tracking_uri
from adapterbank.pipeline.release import release
from adapterbank.records import Prediction
from adapterbank.release.moves import promote, rollback
from tests.cli_samples import Cli
from tests.learning import ENTRIES, new_bank, run_pipeline, write_scenario

FIRST = ENTRIES[:3]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bank without tasks that nobody changes."""
    return new_bank(tmp_path_factory.mktemp("fresh") / "bank").root


@pytest.fixture(scope="module")
def built(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bank that learned the whole scenario, which nobody changes."""
    root = tmp_path_factory.mktemp("built") / "bank"
    shutil.copytree(fresh, root)
    learn_all(root)
    return root


@pytest.fixture
def empty(fresh: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fresh, tmp_path / "bank"))


@pytest.fixture
def learned(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "learned"))


def learn_all(
    root: Path,
    entries: Sequence[Mapping[str, Any]] = ENTRIES,
    *,
    keep_going: bool = False,
    run: Callable[[Path], None] = run_pipeline,
) -> tuple[Learned, ...]:
    bank = Bank.open(root)
    scenario = load_scenario(bank, write_scenario(root, entries))
    return learn(bank, scenario, keep_going=keep_going, run=run)


def write_section(root: Path, entry: Mapping[str, Any]) -> None:
    section = {key: value for key, value in entry.items() if key != "task"}
    known = entry["task"] in load_config(root).tasks
    (replace_task if known else add_task)(root, entry["task"], section)


def digests(root: Path) -> dict[str, list[str]]:
    registry = Bank.open(root).registry
    return {task: [one.digest for one in registry.versions(task)] for task in registry.tasks()}


def rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as stream:
        yield from csv.DictReader(stream)


def test_a_scenario_leaves_a_step_for_each_of_its_entries(built: Path) -> None:
    matrix = read_matrix(built)
    assert [(step.task, step.version, step.kind) for step in matrix.steps] == [
        ("reds", 1, "new task"),
        ("greens", 1, "new domain"),
        ("blues", 1, "new classes"),
        ("reds", 2, "new version"),
    ]
    assert [sorted(step.champions) for step in matrix.steps] == [
        ["reds"], ["greens", "reds"], ["blues", "greens", "reds"], ["blues", "greens", "reds"],
    ]  # fmt: skip
    registry = Bank.open(built).registry
    for step in matrix.steps:
        for task, served in step.champions.items():
            version = registry.resolve(f"{task}@{served.version}")
            assert version.digest == served.digest
            test = json.loads(registry.read(version)["metrics.json"])["test"]
            assert step.oracle[task].correct == test["correct"]
            assert step.routed[task].total == step.oracle[task].total == test["total"]
    (alone,) = matrix.steps[0].identity.values()
    assert alone.correct == alone.total  # of one task every image is of it
    assert matrix.steps[0].routed_all["reds"] == matrix.steps[0].oracle["reds"]


def test_the_last_step_is_what_the_router_and_the_champions_that_are_served_say(
    learned: Path,
) -> None:
    bank = Bank.open(learned)
    predictor = Predictor(bank.registry)
    last = read_matrix(learned).steps[-1]
    _, router = load_router(bank.registry, "router")
    assert set(last.champions) == set(router.tasks)
    for task in last.champions:
        features = frozen_split(bank, predictor.backbone, task, "test").features.numpy()
        test = load_task(bank.data(task)).test
        routes = router.route(features)
        told = [route.candidates[0][0] == task for route in routes]
        images = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in test.images]
        answers = predictor.predict(images, task=task)
        classes = ("thin", "wide")
        right = [answer.label == classes[label] for answer, label in
                 zip(answers, test.labels.tolist(), strict=True)]  # fmt: skip
        assert last.identity[task].correct == sum(told)
        assert last.abstained[task].correct == sum(r.outcome == "abstain" for r in routes)
        assert last.oracle[task].correct == sum(right)
        both = [one and other for one, other in zip(told, right, strict=True)]
        assert last.routed_all[task].correct == sum(both)
        # What a user gets who names no task.
        given = [(one.task, one.label) if isinstance(one, Prediction) else None
                 for one in predictor.predict(images, task="auto")]  # fmt: skip
        wanted = [(task, classes[label]) for label in test.labels.tolist()]
        got = [one == other for one, other in zip(given, wanted, strict=True)]
        assert last.routed[task].correct == sum(got)


@pytest.mark.slow
def test_what_no_router_can_tell_apart_is_routing_that_is_lost(empty: Path) -> None:
    twins = [{"task": name, "data": "photos/reds", "method": "linear"} for name in ("zzz", "aaa")]
    learn_all(empty, twins)
    first, second = read_matrix(empty).steps
    total = first.identity["zzz"].total
    assert first.identity["zzz"].correct == total
    assert (second.identity["zzz"].correct, second.routed["zzz"].correct) == (0, 0)
    assert second.oracle["zzz"] == first.oracle["zzz"]
    assert second.identity["aaa"].correct == total  # ties go to the first by name
    metrics = json.loads((empty / SUMMARY).read_text())
    assert metrics["routing"]["interference"] == {"zzz": 1.0, "aaa": 0.0}
    assert metrics["oracle"]["forgetting/first"] == 0.0
    assert metrics["routed"]["forgetting/first"] == pytest.approx(
        first.routed["zzz"].correct / total, abs=1e-6
    )


@pytest.mark.slow
def test_all_tasks_at_once_give_the_same_versions_and_the_same_matrix(
    built: Path, empty: Path
) -> None:
    for entry in FIRST:
        write_section(empty, entry)
    run_pipeline(empty)
    assert read_matrix(empty) == read_matrix(built).upto(3)
    write_section(empty, ENTRIES[3])
    run_pipeline(empty)
    assert digests(empty) == digests(built)
    for name in (MATRIX, SUMMARY, TABLE, CURVE):
        assert (empty / name).read_bytes() == (built / name).read_bytes()
    params = "pipelines/params.yaml"
    assert (empty / params).read_bytes() == (built / params).read_bytes()


def test_nothing_new_appends_nothing(learned: Path) -> None:
    before = {name: (learned / name).read_bytes() for name in (MATRIX, SUMMARY, TABLE, CURVE)}
    versions = digests(learned)
    found = learn_all(learned)
    assert [one.outcome for one in found] == [*["learned before"] * 3, "learned"]
    assert [one.kind for one in found] == [
        "new task", "new domain", "new classes", "new version",
    ]  # fmt: skip
    assert {name: (learned / name).read_bytes() for name in before} == before
    assert digests(learned) == versions


@pytest.mark.parametrize("until", ["nothing", "register"])
def test_one_that_was_stopped_goes_on_where_it_was(built: Path, empty: Path, until: str) -> None:
    entries = (ENTRIES[0], ENTRIES[3])
    ran: list[Path] = []

    def stopping(root: Path) -> None:
        ran.append(root)
        if len(ran) < 2:
            run_pipeline(root)
            return
        if until == "register":
            run_pipeline(root, until=until)
        raise KeyboardInterrupt

    def counting(root: Path) -> None:
        ran.append(root)
        run_pipeline(root)

    with pytest.raises(KeyboardInterrupt):
        learn_all(empty, entries, run=stopping)
    ran.clear()
    learned = learn_all(empty, entries, run=counting)
    assert len(ran) == 1
    assert [one.outcome for one in learned] == ["learned before", "learned"]
    assert digests(empty)["reds"] == digests(built)["reds"]
    steps = read_matrix(empty).steps
    assert [(step.step, step.version) for step in steps] == [(0, 1), (1, 2)]
    assert steps[1].oracle["reds"] == read_matrix(built).steps[3].oracle["reds"]


def test_a_stage_that_fails_stops_it_with_its_own_error(empty: Path) -> None:
    def failing(root: Path) -> None:
        raise AdapterBankError(f"dvc repro stopped in {root.name}", fix="run it again")

    with pytest.raises(AdapterBankError, match="dvc repro stopped in bank"):
        learn_all(empty, run=failing)
    assert list(load_config(empty).tasks) == ["reds"]


@pytest.mark.slow
def test_a_refused_version_stops_it_unless_it_is_to_go_on(empty: Path) -> None:
    learn_all(empty, FIRST[:1])
    params = empty / "pipelines/params.yaml"
    params.write_text(params.read_text() + "gates: {min_accuracy: 1.0}\n")
    # Labels that mean nothing: no adapter answers all of them.
    for number in range(12):
        thin, wide = (empty / "photos/greens" / name / f"{number:02}.png" for name in
                      ("thin", "wide"))  # fmt: skip
        kept = thin.read_bytes()
        thin.write_bytes(wide.read_bytes())
        wide.write_bytes(kept)
    with pytest.raises(GateRefused, match=r"entry 2 of 3: greens@1 was refused") as caught:
        learn_all(empty, FIRST)
    assert caught.value.exit_code == 1
    assert "--keep-going" in str(caught.value.fix)
    assert list(load_config(empty).tasks) == ["reds", "greens"]
    with pytest.raises(GateRefused, match="greens@1"):
        learn_all(empty, FIRST)
    found = learn_all(empty, FIRST, keep_going=True)
    assert [one.outcome for one in found][:2] == ["learned before", "refused"]
    assert "greens" not in {step.task for step in read_matrix(empty).steps}
    assert list(load_config(empty).tasks) == ["reds", "greens", "blues"]


@pytest.mark.parametrize(
    ("entry", "problems"),
    [
        ({"task": "x", "data": "photos/reds", "metod": "vapt"}, ["metod", "'method'"]),
        ({"task": "X y", "data": "photos/reds"}, ["is not a task name"]),
        ({"data": "photos/reds"}, ["entry 3: task: a name is missing"]),
        ({"task": "x", "data": "photos/nowhere"}, ["entry 3 (x): data:", "nowhere"]),
        ({"task": "x", "data": "embedded://digit"}, ["'digits'"]),
        ({"task": "x", "data": "photos/reds", "method": "vapd"}, ["'vapt'"]),
        ({"task": "x", "data": "photos/reds", "hyper": {"rnk": 1}, "seed": -1}, ["seed"]),
        ({"task": "x", "data": "photos/reds", "train": {"epochs": 0}}, ["train.epochs"]),
        ({"task": "x", "data": "photos/reds", "domain_of": "y"}, ["no task 'y' comes before"]),
        ({"task": "x", "data": "photos/reds", "classes": ["thin", "tall"]}, ["no tall, only"]),
        (dict(ENTRIES[0]), ["is what entry 1 says"]),
        ("reds", ["entry 3: expected keys and values"]),
    ],
)
def test_a_bad_scenario_writes_nothing_and_names_every_problem(
    empty: Path, entry: object, problems: list[str]
) -> None:
    before = (empty / "pipelines/params.yaml").read_bytes()
    path = write_scenario(empty, FIRST[:1])
    also_bad = "- {task: auto, data: photos/reds}\n"
    path.write_text(path.read_text() + also_bad + f"- {json.dumps(entry)}\n")
    with pytest.raises(ConfigError) as caught:
        load_scenario(Bank.open(empty), path)
    everything = str(caught.value)
    shape = any(word in everything for word in ("metod", "not a task", "missing", "seed", "epochs"))
    assert "entry 2 (auto)" in everything
    if shape or entry == "reds":
        assert [one for one in problems if one not in everything] == []
    path.write_text(path.read_text().replace(also_bad, ""))
    with pytest.raises(ConfigError) as caught:
        load_scenario(Bank.open(empty), path)
    wanted = [one.replace("entry 3", "entry 2") for one in problems]
    assert [one for one in wanted if one not in str(caught.value)] == []
    assert (empty / "pipelines/params.yaml").read_bytes() == before


@pytest.mark.parametrize("text", ["tasks: []", "tasks: {}", "[]", "tasks: [", "tasks: 1\nother: 2"])
def test_what_is_no_scenario_is_refused(empty: Path, text: str) -> None:
    path = empty / "scenario.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_scenario(Bank.open(empty), path)


def test_a_rollback_is_a_step_at_the_next_release(learned: Path) -> None:
    bank = Bank.open(learned)
    rollback(bank, "reds", reason="the new images are wrong")
    release(bank)
    matrix = read_matrix(learned)
    assert [(step.task, step.version) for step in matrix.steps][3:] == [("reds", 2), ("reds", 1)]
    last, before = matrix.steps[-1], matrix.steps[2]
    assert last.champions == before.champions
    assert last.oracle == before.oracle
    # The prepared images are those of the second version: nothing is known of the first's.
    assert "reds" not in last.routed
    assert last.routed["blues"] == before.routed["blues"]


def test_a_task_that_is_not_prepared_here_keeps_its_figure_and_is_named(learned: Path) -> None:
    bank = Bank.open(learned)
    shutil.rmtree(bank.root / "work" / "blues")
    promote(bank, "reds@1", expected=2)
    promote(bank, "reds@2", expected=1)
    matrix = read_matrix(learned)
    promote(bank, "reds@1", expected=2)
    params = learned / "pipelines/params.yaml"
    params.write_text(params.read_text().replace("data: photos/blues", "data: photos/elsewhere"))
    release(Bank.open(learned))
    last = read_matrix(learned).steps[-1]
    assert last.carried == ("blues",)
    assert last.routed["blues"] == matrix.steps[-1].routed["blues"]
    assert last.oracle["blues"] == matrix.steps[-1].oracle["blues"]


def test_a_damaged_matrix_is_named_and_left_alone(learned: Path) -> None:
    path = learned / MATRIX
    path.write_text("{}")
    with pytest.raises(AdapterBankError, match=r"the accuracy matrix does not follow") as caught:
        release(Bank.open(learned))
    assert "git checkout HEAD -- reports/matrix.json" in str(caught.value.fix)
    assert path.read_text() == "{}"


def test_a_matrix_that_was_deleted_begins_with_the_champions_there_are(learned: Path) -> None:
    before = read_matrix(learned)
    (learned / MATRIX).unlink()
    release(Bank.open(learned))
    after = read_matrix(learned)
    assert [step.task for step in after.steps] == ["reds", "greens", "blues"]
    assert after.steps[-1].routed == before.steps[-1].routed


def test_tables_and_metrics_say_what_the_matrix_says(built: Path) -> None:
    matrix = read_matrix(built)
    found = list(rows(built / TABLE))
    assert len(found) == 1 + 2 + 3 + 3
    for row in found:
        step = matrix.steps[int(row["step"]) - 1]
        for figure in FIGURES:
            share = step.of(figure)[row["task"]].accuracy
            assert float(row[figure]) == pytest.approx(share, abs=1e-6)
    curve = list(rows(built / CURVE))
    assert [row["learned"] for row in curve] == ["reds", "greens", "blues", "reds"]
    metrics = json.loads((built / SUMMARY).read_text())
    assert metrics["oracle"]["average"] == pytest.approx(float(curve[-1]["oracle"]), abs=1e-6)
    assert metrics["oracle"]["forgetting/chaudhry"] == 0.0
    assert metrics["routing"]["interference"].keys() == {"reds", "greens", "blues"}


def test_mlflow_has_a_run_for_each_release_with_table_pictures_and_metrics(built: Path) -> None:
    runs = find_runs(built, "bank", {})
    assert sorted(tags["mlflow.runName"] for tags in runs.values()) == [
        "step 1: reds", "step 2: greens", "step 3: blues", "step 4: reds",
    ]  # fmt: skip
    newest = next(iter(runs))
    assert len({tags["adapterbank.matrix"] for tags in runs.values()}) == 4
    client = MlflowClient(tracking_uri(built))
    names = {one.path for one in client.list_artifacts(newest)}
    assert names == {"accuracy_matrix.json", "oracle.png", "routed.png", "curves.png"}
    (value,) = client.get_metric_history(newest, "oracle/average")
    metrics = json.loads((built / SUMMARY).read_text())
    assert value.step == 4
    assert value.value == pytest.approx(metrics["oracle"]["average"], abs=1e-6)


def test_the_command_prints_the_matrix_and_its_metrics(
    learned: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(learned)
    monkeypatch.setattr(learning.learn, "__kwdefaults__",
                        {**(learning.learn.__kwdefaults__ or {}), "run": run_pipeline})  # fmt: skip
    write_scenario(learned)
    ran = cli("learn", "scenario.yaml")
    assert ran.code == 0, ran.err
    for said in ("learned before", "reds@2", "new version", "forgetting/chaudhry", "renewal"):
        assert said in ran.out
    content = json.loads(cli("learn", "scenario.yaml", "--json").out)
    assert [entry["outcome"] for entry in content["entries"]] == [
        *["learned before"] * 3,
        "learned",
    ]
    assert content["steps"] == [step.as_json() for step in read_matrix(learned).steps]
    (learned / "scenario.yaml").write_text("tasks: [{task: a}]")
    ran = cli("learn", "scenario.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert "data" in ran.err
