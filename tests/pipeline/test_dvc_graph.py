"""The pipeline under the real DVC, with stage commands that only write what a stage writes.

The stubs are as cheap and as deterministic as stages can be, so what is tested is the graph:
what runs after which change, what is kept, and what a clone gets back.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from adapterbank.bank.scaffold import init_bank
from adapterbank.errors import AdapterBankError
from adapterbank.integrations.dvc import repo
from adapterbank.integrations.environment import DEFAULTS

# What `adapterbank stage NAME [TASK]` leaves behind, in the least code that depends on its inputs.
_STUB: Final = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import hashlib, json, pathlib, sys
import yaml

_, word, stage, *rest = sys.argv
task = rest[0].removeprefix(f"{{stage}}@") if rest else ""
params = yaml.safe_load(pathlib.Path("pipelines/params.yaml").read_text())

def write(name, content):
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)

def read(name):
    return pathlib.Path(name).read_text()

with open("calls.log", "a") as log:
    log.write(f"{{stage}}@{{task}}\\n" if task else f"{{stage}}\\n")
if stage == "backbone":
    backbone = json.dumps(params["backbone"], sort_keys=True)
    write("registry/backbone/model.safetensors", backbone)
    write("registry/backbone.json", backbone)
elif stage == "prepare":
    images = pathlib.Path("images.txt")  # of every task, and unknown to DVC as a folder elsewhere
    found = params["tasks"][task]["data"] + (images.read_text() if images.exists() else "")
    write(f"work/{{task}}/data/train.safetensors", task + found)
    write(f"work/{{task}}/prepared.json", json.dumps({{"digest": found}}))
elif stage == "tune":
    write(f"work/{{task}}/best.json", json.dumps({{"pinned": True}}))
    write(f"work/{{task}}/trials.csv", "trial\\n")
elif stage == "train":
    settings = [params["tasks"][task], params["profiles"][params["profile"]]["train"]]
    settings.append(read(f"work/{{task}}/data/train.safetensors"))
    write(f"work/{{task}}/trained/adapter_model.safetensors", json.dumps([task, settings]))
    write(f"work/{{task}}/run.json", json.dumps({{"run_id": "0"}}))
elif stage == "evaluate":
    content = read(f"work/{{task}}/trained/adapter_model.safetensors")
    write(f"work/{{task}}/version/adapter_model.safetensors", content)
    write(f"work/{{task}}/metrics.json", json.dumps({{"test": 0.5}}))
    write(f"work/{{task}}/confusion.csv", "actual,predicted\\na,a\\n")
elif stage == "register":
    content = read(f"work/{{task}}/version/adapter_model.safetensors")
    digest = hashlib.sha256(content.encode()).hexdigest()
    write(f"registry/adapters/{{task}}/{{digest}}/adapter_model.safetensors", content)
    write(f"work/{{task}}/registered.json", json.dumps({{"digest": digest}}))
elif stage == "release":
    pathlib.Path("registry/router").mkdir(exist_ok=True)  # empty until a task has a champion
    versions = pathlib.Path("registry/adapters").glob("*/*/")
    write("reports/release.json", json.dumps(sorted(str(path) for path in versions)))
    for name in ("matrix.json", "continual.json", "accuracy_matrix.csv", "accuracy_curve.csv"):
        write(f"reports/{{name}}", "step,routed\\n" if name.endswith("csv") else "{{}}")
"""

_BRANCH: Final = ("prepare", "tune", "train", "evaluate", "register")


def _environment(root: Path) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in os.environ if not name.startswith("GIT_")}
    identity = {
        f"GIT_{who}_{what}": f"{what}@example.org".lower()
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    path = os.pathsep.join([str(root / "bin"), inherited["PATH"]])
    return {**inherited, **DEFAULTS, **identity, "PATH": path}


def _run(root: Path, *words: str) -> str:
    done = subprocess.run(
        words, cwd=root, env=_environment(root), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _dvc(root: Path, *words: str) -> str:
    return _run(root, sys.executable, "-m", "dvc", *words)


def _repro(root: Path, *targets: str) -> list[str]:
    """Run the pipeline and return the stages that really ran."""
    log = root / "calls.log"
    log.unlink(missing_ok=True)
    _dvc(root, "repro", *targets)
    return log.read_text().split() if log.exists() else []


def _params(root: Path, **changes: Any) -> None:  # noqa: ANN401  # any YAML value
    path = root / "pipelines/params.yaml"
    content = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump(content))


def _task(name: str, **settings: Any) -> dict[str, Any]:  # noqa: ANN401  # any YAML value
    return {"data": f"embedded://{name}", "method": "vapt", **settings}


def _versions(root: Path, task: str) -> set[str]:
    return {path.name for path in (root / "registry/adapters" / task).iterdir()}


def _give_stub(root: Path) -> None:
    stub = root / "bin" / "adapterbank"
    stub.parent.mkdir()
    stub.write_text(_STUB.format(python=sys.executable))
    stub.chmod(0o755)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bank with two tasks, built once; tests that change it take a copy."""
    root = tmp_path_factory.mktemp("built") / "bank"
    init_bank(root)
    _give_stub(root)
    (root / ".gitignore").write_text((root / ".gitignore").read_text() + "/bin/\n/calls.log\n")
    # A bank without tasks is a bank: DVC accepts an empty mapping.
    assert _repro(root) == ["backbone", "release"]
    _params(root, tasks={"digits": _task("digits"), "textures": _task("textures")})
    _repro(root)
    return root


@pytest.fixture
def bank(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "bank", symlinks=True))


def test_a_built_bank_has_nothing_to_do_and_says_so(built: Path) -> None:
    said = _dvc(built, "repro")

    assert "Data and pipelines are up to date" in said
    assert "Running stage" not in said


def test_release_runs_after_every_register(built: Path) -> None:
    edges = _dvc(built, "dag", "--dot")

    assert '"register@digits" -> "release"' in edges
    assert '"register@textures" -> "release"' in edges


def test_adding_a_task_runs_its_own_branch_and_the_release(bank: Path) -> None:
    tasks = yaml.safe_load((bank / "pipelines/params.yaml").read_text())["tasks"]
    _params(bank, tasks={"count": _task("count"), **tasks})

    assert _repro(bank) == [*(f"{stage}@count" for stage in _BRANCH), "release"]
    assert "count" in (bank / "reports/release.json").read_text()


# Without [ and \\, of which DVC itself makes nothing that it finds again.
_HOSTILE: Final = (
    "a'; touch x; '$(touch x)`touch x` && touch x || touch x & \" touch x \" | touch x # <y >z * ?"
    " {c} ~ ! % = (d)"
)


@pytest.mark.slow
def test_no_name_below_tasks_is_read_by_a_shell(tmp_path: Path) -> None:
    root = tmp_path / "bank"
    init_bank(root)
    _give_stub(root)
    _params(root, tasks={_HOSTILE: _task("digits")})

    assert _repro(root, "--glob", "prepare@*") == ["backbone", *f"prepare@{_HOSTILE}".split()]
    assert not (root / "x").exists()
    assert json.loads((root / "work" / _HOSTILE / "prepared.json").read_text())


def test_no_command_of_the_pipeline_has_words_of_the_configuration(built: Path) -> None:
    text = (built / "dvc.yaml").read_text()
    assert not [line for line in text.splitlines() if "cmd:" in line and "${" in line]


@pytest.mark.slow
def test_training_again_keeps_every_version(bank: Path) -> None:
    (first,) = _versions(bank, "digits")
    others = _versions(bank, "textures")
    _params(
        bank,
        tasks={"digits": _task("digits", hyper={"rank": 4}), "textures": _task("textures")},
    )

    assert _repro(bank) == [*(f"{stage}@digits" for stage in _BRANCH), "release"]
    assert first in _versions(bank, "digits")
    assert len(_versions(bank, "digits")) == 2

    # Back to the first settings: DVC remembers data and evaluation, but must not replay what
    # `register` left behind at the time, or the second version would be gone from the folder.
    _params(bank, tasks={"digits": _task("digits"), "textures": _task("textures")})

    assert _repro(bank)[-2:] == ["register@digits", "release"]
    assert len(_versions(bank, "digits")) == 2
    assert _versions(bank, "textures") == others


@pytest.mark.slow
def test_images_changed_in_place_are_read_again_when_asked_for(bank: Path) -> None:
    (bank / "images.txt").write_text("new")

    assert _repro(bank, "--force", "prepare@digits") == ["backbone", "prepare@digits"]
    assert _repro(bank) == [*(f"{stage}@digits" for stage in _BRANCH[1:]), "release"]
    assert len(_versions(bank, "digits")) == 2


@pytest.mark.slow
def test_data_is_never_put_back_from_an_earlier_run(bank: Path) -> None:
    """A replayed `prepare` would bring the pixels that images had when it ran last."""
    data = bank / "work/digits/data"
    shutil.rmtree(data)
    assert _repro(bank) == ["prepare@digits"]  # the images are as they were

    (bank / "images.txt").write_text("new")
    shutil.rmtree(data)
    assert _repro(bank)[:3] == ["prepare@digits", "tune@digits", "train@digits"]
    assert "new" in (data / "train.safetensors").read_text()

    tasks = {"digits": _task("digits"), "textures": _task("textures")}
    _params(bank, tasks=tasks | {"digits": _task("digits", seed=2)})
    _repro(bank)
    (bank / "images.txt").write_text("newer")
    _params(bank, tasks=tasks)  # as they were when the images were others
    assert "prepare@digits" in _repro(bank)
    assert "newer" in (data / "train.safetensors").read_text()


def test_a_profile_that_is_not_in_use_may_be_edited(bank: Path) -> None:
    profiles = yaml.safe_load((bank / "pipelines/params.yaml").read_text())["profiles"]
    demo = {"limits": {"train": 1}, "train": {"epochs": 1}, "search": None}
    _params(bank, profiles=profiles | {"demo": demo})

    assert _repro(bank) == []


@pytest.mark.slow
def test_the_epochs_of_the_profile_do_not_touch_the_data(bank: Path) -> None:
    profiles = yaml.safe_load((bank / "pipelines/params.yaml").read_text())["profiles"]
    profiles["full"]["train"]["epochs"] = 99
    _params(bank, profiles=profiles)

    ran = _repro(bank)
    assert {stage.split("@")[0] for stage in ran} == {*_BRANCH[1:], "release"}


@pytest.mark.slow
def test_how_the_router_is_built_trains_nothing_but_what_records_hold_does(bank: Path) -> None:
    router = yaml.safe_load((bank / "pipelines/params.yaml").read_text())["router"]
    _params(bank, router=router | {"alpha": 0.2})
    assert _repro(bank) == ["release"]

    _params(bank, router=router | {"alpha": 0.2, "blocks": [4, 12]})
    assert "train@digits" in _repro(bank)


@pytest.mark.slow
def test_a_removed_task_leaves_the_others_alone(bank: Path) -> None:
    _params(bank, tasks={"textures": _task("textures")})

    assert _repro(bank) == ["release"]


@pytest.mark.slow
def test_removing_and_adding_back_judges_again(bank: Path) -> None:
    """A replayed release would restore the right report and move no alias."""
    _params(bank, tasks={"textures": _task("textures")})
    assert _repro(bank, "release") == ["release"]
    _params(bank, tasks={"digits": _task("digits"), "textures": _task("textures")})

    assert _repro(bank, "release") == ["release"]


@pytest.mark.slow
def test_a_version_registered_by_hand_is_taken_in(bank: Path) -> None:
    by_hand = bank / "registry/adapters/digits" / ("0" * 64)
    by_hand.mkdir()
    (by_hand / "adapter_model.safetensors").write_text("by hand")

    assert _repro(bank) == ["register@digits", "release"]
    assert by_hand.is_dir()
    assert _repro(bank) == []


def test_leftovers_of_killed_writers_are_no_change(bank: Path) -> None:
    (bank / "registry/adapters/digits/.tmp-1f0c").mkdir()
    (bank / "registry/adapters/digits/.tmp-1f0c/x").write_text("half")
    (bank / "registry/adapters/digits/.tmp-2").write_text("half")

    assert _repro(bank) == []


def test_a_changed_backbone_meets_what_is_there(bank: Path) -> None:
    """Its outputs are not deleted first, so the stage can refuse and leave the bank working."""
    (bank / "bin/adapterbank").write_text("#!/bin/sh\nexit 5\n")
    _params(bank, backbone={"uri": "random://other", "size": [84, 84]})

    with pytest.raises(AssertionError, match="failed to reproduce 'backbone'"):
        _repro(bank)

    assert (bank / "registry/backbone/model.safetensors").is_file()
    assert (bank / "registry/backbone.json").is_file()


def test_git_gets_the_small_files_and_dvc_the_rest(bank: Path) -> None:
    _run(bank, "git", "add", "--all")
    tracked = set(_run(bank, "git", "ls-files").split())

    assert {"dvc.lock", "registry/backbone.json", "reports/release.json"} <= tracked
    assert {"reports/matrix.json", "reports/continual.json"} <= tracked
    assert {
        f"work/digits/{name}"
        for name in ("prepared.json", "best.json", "run.json", "metrics.json", "registered.json")
    } <= tracked
    assert not [name for name in tracked if "safetensors" in name]
    assert "work/digits/confusion.csv" not in tracked  # a line for each test image
    # The bank's own .gitignore covers every output, so DVC writes none beside them.
    assert {name for name in tracked if name.endswith(".gitignore")} == {
        ".gitignore",
        ".dvc/.gitignore",
    }


@pytest.mark.slow
def test_a_clone_pulls_a_finished_bank(bank: Path, tmp_path: Path) -> None:
    _dvc(bank, "remote", "add", "--default", "store", str(tmp_path / "store"))
    _dvc(bank, "push", "--quiet")
    _run(bank, "git", "add", "--all")
    _run(bank, "git", "commit", "--quiet", "--message", "a bank")
    clone = tmp_path / "clone"
    _run(tmp_path, "git", "clone", "--quiet", str(bank), str(clone))
    _give_stub(clone)

    _dvc(clone, "pull", "--quiet")

    assert _repro(clone) == []
    assert _versions(clone, "digits") == _versions(bank, "digits")


@pytest.mark.slow
def test_a_bank_without_git_runs_the_same_pipeline(tmp_path: Path) -> None:
    init_bank(tmp_path, git=False)
    _give_stub(tmp_path)
    _params(tmp_path, tasks={"digits": _task("digits")})

    assert len(_repro(tmp_path)) == 7
    assert _repro(tmp_path) == []


def test_repro_runs_one_stage_and_what_it_needs(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{bank / 'bin'}{os.pathsep}{os.environ['PATH']}")
    # A real `adapterbank` beside this interpreter would be found first.
    monkeypatch.setattr(repo, "_environment", lambda: _environment(bank))
    shutil.rmtree(bank / "work/digits/trained")
    (bank / "calls.log").unlink()

    repo.repro(bank, ["train@digits"], quiet=True)

    assert (bank / "work/digits/trained").is_dir()
    with pytest.raises(AdapterBankError, match="exit code"):
        repo.repro(bank, ["train@nothing"], quiet=True)
