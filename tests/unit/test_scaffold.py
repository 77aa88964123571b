"""`init`: a new bank, a finished one, a half one, and a folder that is somebody else's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from adapterbank.bank.scaffold import PIPELINE_MARK, init_bank
from adapterbank.config.bank import load_config
from adapterbank.errors import AdapterBankError, ConflictError, InputError

_PARTS = [
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvcignore",
    ".gitattributes",
    ".gitignore",
    "dvc.yaml",
    "pipelines/params.yaml",
    "registry/README.md",
    "registry/adapters/.gitkeep",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bank that tests copy; `dvc init` takes half a second."""
    root = tmp_path_factory.mktemp("finished") / "bank"
    init_bank(root)
    return root


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "bank"))


def _names(root: Path, paths: list[Path]) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in paths)


def _snapshot(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(root).parts
    }


def test_a_new_bank_has_all_its_parts(tmp_path: Path) -> None:
    root = tmp_path / "my bänk"

    made = init_bank(root)

    assert _names(root, made) == _PARTS
    assert all((root / name).is_file() for name in _PARTS)
    assert (root / ".git").is_dir()
    assert "analytics = false" in (root / ".dvc/config").read_text()
    assert not list(root.rglob(".tmp-*"))


def test_the_starter_is_a_valid_configuration_without_tasks(finished: Path) -> None:
    config = load_config(finished)

    assert config.tasks == {}
    assert config.active is config.profiles[config.profile]


def test_a_finished_bank_is_left_alone(copy: Path) -> None:
    before = _snapshot(copy)

    assert init_bank(copy) == []
    assert _snapshot(copy) == before


@pytest.mark.parametrize("missing", _PARTS)
def test_a_missing_part_is_made_again(copy: Path, missing: str) -> None:
    before = _snapshot(copy)
    (copy / missing).unlink()

    assert _names(copy, init_bank(copy)) == [missing]
    assert _snapshot(copy) == before


def test_the_user_s_edits_are_kept(copy: Path) -> None:
    params = copy / "pipelines/params.yaml"
    params.write_text(params.read_text().replace("profile: full", "profile: demo"))
    pipeline = copy / "dvc.yaml"
    pipeline.write_text(pipeline.read_text() + "# a note\n")
    before = _snapshot(copy)

    assert init_bank(copy) == []
    assert _snapshot(copy) == before


def test_lines_are_added_to_ignore_files_that_were_there(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("/secret.txt\n/mlartifacts/")

    init_bank(tmp_path)

    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert lines[:2] == ["/secret.txt", "/mlartifacts/"]
    assert lines.count("/mlartifacts/") == 1
    assert "/work/*/*/" in lines


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dvc.yaml", "stages: {}\n"),
        ("pipelines/params.yaml", "learning_rate: 1\n"),
        ("pipelines/params.yaml", "{not yaml"),
        ("pipelines/params.yaml", ""),
        ("registry", "a file\n"),
    ],
)
def test_somebody_else_s_file_is_not_overwritten(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    before = _snapshot(tmp_path)

    with pytest.raises(ConflictError, match=name):
        init_bank(tmp_path)

    assert _snapshot(tmp_path) == before
    assert not (tmp_path / ".git").exists()


def test_all_conflicts_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / ".gitignore").mkdir()

    with pytest.raises(ConflictError, match=r"dvc\.yaml.*\.gitignore is a folder"):
        init_bank(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bank").write_text("x")

    with pytest.raises(ConflictError, match="is a file"):
        init_bank(tmp_path / "bank")


def test_a_bank_in_a_folder_that_git_ignores_gets_a_repository_of_its_own(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)  # noqa: S607
    (tmp_path / ".gitignore").write_text("/out/\n")
    bank = tmp_path / "out" / "bank"

    init_bank(bank)
    assert (bank / ".git").is_dir()
    assert init_bank(bank) == []


def test_a_bank_can_do_without_git(tmp_path: Path) -> None:
    made = init_bank(tmp_path, git=False)

    assert ".dvc/.gitignore" not in _names(tmp_path, made)
    assert not (tmp_path / ".git").exists()
    assert "no_scm = true" in (tmp_path / ".dvc/config").read_text().lower()
    assert init_bank(tmp_path, git=False) == []


def test_a_bank_without_git_can_be_put_under_it_later(tmp_path: Path) -> None:
    init_bank(tmp_path, git=False)

    changed = init_bank(tmp_path, git=True)

    assert _names(tmp_path, changed) == [".dvc/.gitignore", ".dvc/config"]
    assert "no_scm = false" in (tmp_path / ".dvc/config").read_text()
    assert init_bank(tmp_path) == []


def test_a_bank_inside_a_repository_joins_it(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)  # noqa: S607

    init_bank(tmp_path / "vision" / "bank")

    assert not (tmp_path / "vision" / "bank" / ".git").exists()
    assert (tmp_path / "vision" / "bank" / ".dvc" / "config").is_file()


def test_the_lock_file_of_the_pipeline_is_not_ignored(copy: Path) -> None:
    """DVC refuses to run when Git ignores it."""
    names = ["dvc.lock", "registry/aliases/dtd.json", "work/dtd/metrics.json"]
    ignored = ["registry/adapters/dtd/x", "work/dtd/data/x", "mlflow.db-wal", "registry/.lock"]

    done = subprocess.run(
        ["git", "check-ignore", *names, *ignored],  # noqa: S607
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.split() == ignored


def test_the_pipeline_carries_the_mark_that_init_looks_for(finished: Path) -> None:
    assert (finished / "dvc.yaml").read_text().startswith(PIPELINE_MARK)


def test_a_folder_that_cannot_be_written_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "bank"))

    monkeypatch.setattr("adapterbank.bank.scaffold.make_directory", refuse)

    with pytest.raises(AdapterBankError, match="Cannot write"):
        init_bank(tmp_path / "bank")


def test_a_folder_whose_name_is_not_utf_8_is_refused_and_not_made(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(InputError, match=r"caf\\udce9: this name is not UTF-8"):
        init_bank(folder)
    assert not folder.exists()
