"""Standard input, output or error that are closed, full or read by nobody any more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adapterbank import __main__
from adapterbank.cli import render
from adapterbank.errors import UnknownName

START = (sys.executable, "-m", "adapterbank")


def run(redirection: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """Start the program as a shell does."""
    script = f'"$@" {redirection}'
    return subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail; {script}", "bash", *START, *words],
        cwd=cwd, capture_output=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bank without a task."""
    root = tmp_path_factory.mktemp("empty")
    done = run("", "init", "--no-git", str(root), cwd=root)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize(
    ("redirection", "codes", "said"),
    [
        (">&-", {1}, b"Error: Cannot write to standard output: Bad file descriptor"),
        (">/dev/full", {1}, b"Error: Cannot write to standard output: No space left on device"),
        ("<&-", {0}, b""),
        ("2>&-", {0}, b""),
        ("<&- >&- 2>&-", {1}, b""),
        ("| true", {0, 141}, b""),
        ("| head -c 1", {0, 141}, b""),
    ],
    ids=["output-closed", "output-full", "input-closed", "error-closed", "all", "unread", "head"],
)
@pytest.mark.parametrize("words", [("task", "list"), ("task", "list", "--json")], ids=["", "json"])
def test_a_stream_that_is_none_gives_a_sentence_and_a_code_and_no_traceback(
    empty: Path, words: tuple[str, ...], redirection: str, codes: set[int], said: bytes
) -> None:
    done = run(redirection, *words, cwd=empty)
    assert done.returncode in codes
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert b"Internal" not in done.stderr
    assert "--json" in words or said in done.stderr


def test_an_error_that_cannot_be_told_still_has_its_code(empty: Path) -> None:
    done = run("2>/dev/full", "show", "nobody", cwd=empty)
    assert done.returncode == 3


@pytest.mark.parametrize("full", ["stdout", "stderr"])
def test_an_error_is_told_though_what_was_written_before_it_cannot_be(
    full: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        render.line("an answer")
        raise UnknownName("task", "nobody")

    monkeypatch.setattr(__main__, "app", fail)
    with Path("/dev/full").open("w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, full, stream)
        assert __main__.main(["show"]) == 3
    assert full == "stderr" or "Unknown task 'nobody'" in capsys.readouterr().err


def test_nothing_that_is_said_ends_up_in_a_file_that_got_a_closed_streams_number(
    empty: Path,
) -> None:
    params = empty / "pipelines" / "params.yaml"
    before = params.read_bytes()
    done = run(
        "<&- >&- 2>&-", "task", "add", "pets", "--data", "embedded://digits", "--bogus", cwd=empty
    )
    assert done.returncode == 2
    assert params.read_bytes() == before
