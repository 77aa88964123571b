"""The stages: repeatable to the digest, and nothing half-made is ever taken for a result."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow.entities import Run
from safetensors.torch import load as load_tensors

from adapterbank import durable
from adapterbank.bank.bank import Bank
from adapterbank.errors import InputError, IntegrityError, TrainingDiverged, UnknownName
from adapterbank.inference.artifact import build_adapter
from adapterbank.integrations.mlflow.mirror import lookup
from adapterbank.integrations.mlflow.store import open_client
from adapterbank.pipeline.evaluate import evaluate
from adapterbank.pipeline.prepare import prepare
from adapterbank.pipeline.register import register
from adapterbank.pipeline.train import train
from adapterbank.registry.manifest import MANIFEST
from adapterbank.training.sinks import Epoch
from tests.cli_samples import PARAMS, draw

TASK = "colours"


@pytest.fixture
def opened(bank: Path) -> Bank:
    """Return a bank with two versions of one task; ``work/`` holds the second."""
    return Bank.open(bank)


def changed(bank: Bank, old: str, new: str) -> Bank:
    """Change the bank's parameters as a person would."""
    assert old in PARAMS
    (bank.root / "pipelines" / "params.yaml").write_text(PARAMS.replace(old, new))
    return Bank.open(bank.root)


def run_all(bank: Bank) -> None:
    prepare(bank, TASK)
    train(bank, TASK)
    evaluate(bank, TASK)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Interrupting:
    """A sink that is interrupted, as by Ctrl-C, after a number of steps."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.epochs: list[Epoch] = []

    def step(self, done: int, total: int) -> None:
        assert done <= total
        if done == self.after:
            raise KeyboardInterrupt

    def epoch(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)


def test_the_same_seed_gives_the_same_version_from_nothing(opened: Bank) -> None:
    before = opened.registry.history(TASK)
    shutil.rmtree(opened.root / "work")
    run_all(opened)  # with the first version's seed
    assert register(opened, TASK) == opened.registry.resolve(f"{TASK}@1")
    assert opened.registry.history(TASK) == before


def test_another_seed_gives_another_version(opened: Bank) -> None:
    first, second = opened.registry.versions(TASK)
    assert first.digest != second.digest


def test_registering_twice_is_one_version_here_and_in_mlflow(opened: Bank) -> None:
    assert register(opened, TASK) == register(opened, TASK)
    assert len(opened.registry.versions(TASK)) == 2
    mirrored = lookup(opened.root, TASK).versions
    assert [version.version for version in mirrored] == [1, 2]


def test_a_bank_that_lost_its_registry_registers_the_same_version_again(opened: Bank) -> None:
    version = register(opened, TASK)
    shutil.rmtree(version.path)
    assert register(opened, TASK) == version
    assert opened.registry.read(version)


def test_no_file_of_a_version_tells_where_or_when_it_was_made(opened: Bank) -> None:
    version = opened.registry.resolve(TASK)
    run = json.loads(opened.note(TASK, "run.json").read_text())
    for name, data in content(version.path).items():
        for secret in (str(opened.root), run["run_id"]):
            assert secret.encode() not in data, name


@pytest.mark.parametrize("written", ["../far/images", "{far}/images"])
def test_images_outside_the_bank_leave_no_path_in_a_version(opened: Bank, written: str) -> None:
    far = opened.root.parent / "far"
    shutil.copytree(opened.root / "photos", far / "images")
    bank = changed(opened, "data: photos", f"data: {written.format(far=far)}")
    run_all(bank)
    config = json.loads((bank.version(TASK) / "adapter_config.json").read_text())
    assert config["data"]["source"] == "folder://images"
    for folder in (bank.data(TASK), bank.version(TASK)):
        for name, data in content(folder).items():
            assert str(far).encode() not in data, name


def test_figures_are_counts_that_agree_with_one_another(opened: Bank) -> None:
    metrics = evaluate(opened, TASK)
    assert json.loads(opened.note(TASK, "metrics.json").read_text()) == metrics
    assert json.loads((opened.version(TASK) / "metrics.json").read_text()) == metrics
    with opened.note(TASK, "confusion.csv").open(newline="", encoding="utf-8") as stream:
        pairs = [(row["actual"], row["predicted"]) for row in csv.DictReader(stream)]
    assert len(pairs) == metrics["test"]["total"]
    assert sum(actual == predicted for actual, predicted in pairs) == metrics["test"]["correct"]
    counts = Counter(actual for actual, _ in pairs)
    assert set(counts) == {"blue", "green", "rusty red"}
    weights = load_tensors((opened.version(TASK) / "adapter_model.safetensors").read_bytes())
    assert sum(t.numel() for t in weights.values()) == sum(metrics["parameters"].values())


@pytest.mark.parametrize(("asked", "noted"), [("auto", 1), ("colours@1", 1), ("none", 0)])
def test_a_task_that_asks_for_a_warm_start_is_trained_from_scratch_with_a_note(
    opened: Bank, asked: str, noted: int
) -> None:
    train(opened, TASK)
    scratch = content(opened.trained(TASK))
    bank = changed(opened, "seed: 1", f"warm_start: {asked}\n    seed: 1")
    notes: list[str] = []
    train(bank, TASK, note=notes.append)
    assert content(bank.trained(TASK)) == scratch
    assert [line for line in notes if "tasks.colours.warm_start" in line] == notes
    assert len(notes) == noted


def test_how_a_device_was_asked_for_is_no_part_of_a_version(opened: Bank) -> None:
    train(opened, TASK)
    chosen = content(opened.trained(TASK))
    assert b'"device"' not in chosen["adapter_config.json"]
    bank = changed(opened, "batch_size: 8", "batch_size: 8, device: cpu")
    train(bank, TASK)
    assert content(bank.trained(TASK)) == chosen


def test_training_tells_its_sinks(opened: Bank) -> None:
    told = Interrupting(after=-1)
    result = train(opened, TASK, sinks=(told,))
    assert [epoch.number for epoch in told.epochs] == [1]
    last = told.epochs[-1].val
    assert result["val"] == {"correct": last.correct, "total": last.total}


def test_evaluation_refuses_an_adapter_of_other_data(opened: Bank) -> None:
    draw(opened.root / "photos" / "blue" / "00.png", (40, 40, 200), seed=999)
    prepare(opened, TASK)
    with pytest.raises(InputError, match="the prepared data is") as caught:
        evaluate(opened, TASK)
    assert caught.value.fix == f"dvc repro evaluate@{TASK}"


def test_preparing_again_changes_no_byte(opened: Bank) -> None:
    found = prepare(opened, TASK)
    before = content(opened.data(TASK)), opened.note(TASK, "prepared.json").read_bytes()
    assert prepare(opened, TASK) == found
    assert (content(opened.data(TASK)), opened.note(TASK, "prepared.json").read_bytes()) == before
    note = json.loads(before[1])
    assert (note["counts"], note["digest"]) == (found["counts"], found["digest"])


def test_parameters_that_give_the_same_pixels_give_the_same_data(opened: Bank) -> None:
    """DVC would train again otherwise: it hashes the folder of the data and not the note."""
    prepare(opened, TASK)
    before = content(opened.data(TASK))
    prepare(changed(opened, "test: 12", "test: null"), TASK)
    assert content(opened.data(TASK)) == before


@pytest.mark.parametrize(
    ("missing", "stage", "fix"),
    [
        ("data", train, "dvc repro"),
        ("trained", evaluate, f"dvc repro train@{TASK}"),
        ("version", register, f"dvc repro evaluate@{TASK}"),
    ],
)
def test_a_stage_without_the_one_before_says_which_to_run(
    opened: Bank, missing: str, stage: Callable[[Bank, str], object], fix: str
) -> None:
    shutil.rmtree(opened.root / "work" / TASK / missing)
    with pytest.raises(InputError) as caught:
        stage(opened, TASK)
    assert caught.value.fix == fix


@pytest.mark.parametrize("stage", [prepare, train])
def test_an_unknown_task_lists_its_neighbours(
    opened: Bank, stage: Callable[[Bank, str], object]
) -> None:
    with pytest.raises(UnknownName, match="'colours'"):
        stage(opened, "colors")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "canary.safetensors"])
def test_a_truncated_file_of_a_training_is_refused_by_name(opened: Bank, name: str) -> None:
    path = opened.trained(TASK) / name
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(IntegrityError, match=f"work/{TASK}/trained"):
        evaluate(opened, TASK)


def test_a_stray_file_is_not_registered(opened: Bank) -> None:
    (opened.version(TASK) / "notes.txt").write_text("mine")
    with pytest.raises(IntegrityError, match=r"notes\.txt"):
        register(opened, TASK)


@pytest.mark.parametrize("earlier", [False, True])
def test_an_interrupted_training_leaves_what_was_there(opened: Bank, *, earlier: bool) -> None:
    if not earlier:
        shutil.rmtree(opened.trained(TASK))
        opened.note(TASK, "run.json").unlink()
    folder = opened.root / "work" / TASK
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(KeyboardInterrupt):
        train(opened, TASK, sinks=(Interrupting(after=2),))
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before
    assert newest_run(opened).info.status == "KILLED"


def test_a_training_that_diverges_keeps_the_last_good_weights(opened: Bank) -> None:
    bank = changed(opened, "epochs: 1", "epochs: 1, learning_rate: 1.0e+30")
    shutil.rmtree(bank.trained(TASK))
    with pytest.raises(TrainingDiverged, match=r"work/colours/last_good\.safetensors"):
        train(bank, TASK)
    assert not bank.trained(TASK).exists()
    assert newest_run(bank).info.status == "FAILED"
    kept = load_tensors(bank.note(TASK, "last_good.safetensors").read_bytes())
    section, traits = bank.config.task(TASK), bank.registry.backbone().traits
    adapter = build_adapter(section.method, section.hyper, traits, 3, seed=0, where="a test")
    adapter.load_state_dict(kept, strict=True)
    assert all(tensor.isfinite().all() for tensor in kept.values())


# --- what MLflow shows --------------------------------------------------------------------------


def newest_run(bank: Bank) -> Run:
    client = open_client(bank.root)
    experiment = client.get_experiment_by_name(TASK)
    assert experiment is not None
    runs = client.search_runs(
        [experiment.experiment_id], order_by=["attributes.start_time DESC"], max_results=1
    )
    newest: Run = runs[0]
    return newest


def test_a_run_shows_parameters_curves_picture_and_adapter(opened: Bank) -> None:
    client = open_client(opened.root)
    run_id = json.loads(opened.note(TASK, "run.json").read_text())["run_id"]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    backbone = opened.registry.backbone()
    expected = {
        "task": TASK,
        "method": "vapt",
        "seed": "1",
        "train.batch_size": "6",
        "hyper.prompts": "2",
        "train.epochs": "1",
        "backbone.fingerprint": backbone.fingerprint,
        "data.source": "photos",
    }
    assert expected.items() <= run.data.params.items()
    assert any(name.startswith("train.optimisation.") for name in run.data.params)
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "rate"):
        assert [value.step for value in client.get_metric_history(run_id, name)] == [1]
    metrics = json.loads(opened.note(TASK, "metrics.json").read_text())
    accuracy = metrics["test"]["correct"] / metrics["test"]["total"]
    assert run.data.metrics["final/test_accuracy"] == pytest.approx(accuracy, abs=1e-12)  # float64
    assert run.inputs is not None
    (data,) = run.inputs.dataset_inputs
    assert run.data.params["data.digest"].startswith(data.dataset.digest)
    attached = {file.path for file in client.list_artifacts(run_id)}
    assert {"confusion.png", "metrics.json", "adapter"} <= attached
    files = {Path(file.path).name for file in client.list_artifacts(run_id, "adapter")}
    assert files == set(content(opened.version(TASK)))


def test_a_model_version_points_at_the_run_that_made_it_and_at_its_bytes(opened: Bank) -> None:
    bank = changed(opened, "seed: 1", "seed: 3")
    run_all(bank)
    version = register(bank, TASK)
    mirrored = lookup(bank.root, TASK).of(version.digest)
    assert mirrored is not None
    assert mirrored.run_id == json.loads(bank.note(TASK, "run.json").read_text())["run_id"]
    tags = dict(mirrored.tags)
    assert tags["backbone"] == bank.registry.backbone().fingerprint
    assert (tags["kind"], tags["method"]) == ("adapter", "vapt")
    assert bank.root / tags["path"] == version.path


def test_a_model_versions_source_is_the_md5_dvc_gives_its_manifest(opened: Bank) -> None:
    from dvc_data.hashfile.hash import file_md5  # noqa: PLC0415  # slow import
    from dvc_objects.fs.local import LocalFileSystem  # noqa: PLC0415

    version = opened.registry.resolve(TASK)
    mirrored = lookup(opened.root, TASK).of(version.digest)
    assert mirrored is not None
    md5 = file_md5(str(version.path / MANIFEST), LocalFileSystem())  # type: ignore[no-untyped-call]
    assert mirrored.source == f"dvc://md5/{md5}"


def test_the_champion_in_mlflow_is_the_registrys(opened: Bank) -> None:
    aliased = lookup(opened.root, TASK).aliased("champion")
    assert aliased is not None
    assert aliased.digest == opened.registry.resolve(TASK).digest


def test_two_processes_prepare_a_task_one_after_the_other(bank: Path) -> None:
    opened = Bank.open(bank)
    lock = opened.note(TASK, "locks") / "prepare"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(1) as pool:
        with durable.locked(lock):
            waiting = pool.submit(prepare, opened, TASK)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
        assert waiting.result()["task"] == TASK
