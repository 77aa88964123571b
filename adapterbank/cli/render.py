"""What a command says: its answer, as text or as JSON, notes and errors.

Answers go to standard output, everything else to standard error. Where standard output is no
terminal, tables are as wide as they need to be and lines are never folded.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import typer

from adapterbank.errors import AdapterBankError
from adapterbank.text import json_text, percent, visible

if TYPE_CHECKING:
    from adapterbank.records import Score
    from adapterbank.registry.versions import Version

UNREAD = 141  # 128 + SIGPIPE, what a shell reports of a program that nobody reads
_WIDE = 10_000


@dataclass(frozen=True)
class Table:
    """A table; columns whose name starts with ``>`` stand to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str | None = None


@dataclass(frozen=True)
class Faint:
    """A line of an answer with a part of less weight at its end."""

    text: str
    rest: str


@dataclass(frozen=True)
class Answer:
    """What a command answers, to programs and to people.

    Args:
        content: printed with ``--json``. Beside JSON values it may hold paths and dataclasses.
        text: lines and tables, printed without ``--json``.
        notes: lines for standard error, with and without.
        exit_code: what the program ends with.
    """

    content: Mapping[str, Any]
    text: Sequence[str | Faint | Table] = ()
    notes: Sequence[str] = ()
    exit_code: int = 0


def prepare_streams() -> None:
    """Let characters that the terminal cannot show be escaped, and closed streams be none's.

    The next file that is opened would get the number of a closed one, and what is meant for the
    stream. Standard output is opened such that writing to it fails, as to a closed one.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
            os.dup2(null, number)
            if null != number:
                os.close(null)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence() -> int:
    """Stop writing to a standard output that nobody reads, and return the exit code for it."""
    _discard(sys.stdout)
    return UNREAD


def _discard(stream: IO[str]) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())  # the interpreter flushes at its end once more
    os.close(null)


@contextmanager
def answers_diverted(*, divert: bool = True) -> Iterator[None]:
    """Let what child processes answer in the block go to standard error, if ``divert`` is set."""
    if not divert:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def line(text: str = "", *, at_once: bool = False) -> None:
    """Print one line of an answer; whatever is in it, it stays one line and moves no cursor.

    Args:
        text: the line.
        at_once: do not wait for more; for streams that a person or a program follows.
    """
    _write(f"{visible(text)}\n", at_once=at_once)


def finish() -> None:
    """Write what was not written yet; a closed pipe or a full disk is noticed here, not later.

    Raises:
        AdapterBankError: standard output cannot be written.
        BrokenPipeError: nobody reads it any more.
    """
    with _writing():
        sys.stdout.flush()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        silence()
        reason = f"Cannot write to standard output: {error.strerror or error}"
        raise AdapterBankError(reason, fix="give it another place, such as > FILE") from error


def _write(text: str, *, at_once: bool) -> None:
    try:
        with _writing():
            sys.stdout.write(text)
            if at_once:
                sys.stdout.flush()
    except BrokenPipeError as error:
        raise typer.Exit(silence()) from error


def note(text: str) -> None:
    """Print one line about the work rather than of the answer, on standard error."""
    _write_note(visible(text))


def _write_note(text: str) -> None:
    finish()
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:  # nobody can be told, so the exit code has to tell
        _discard(sys.stderr)


def error(kind: str, message: str, fix: str | None, exit_code: int, *, as_json: bool) -> None:
    """Print what went wrong, and what mends it, on standard error.

    Args:
        kind: name of the error, for programs.
        message: what is wrong; the line breaks in it are meant.
        fix: the command or edit that mends it.
        exit_code: what the program will end with.
        as_json: print one object instead of text.
    """
    with suppress(AdapterBankError):
        finish()  # of two errors the first is told
    if as_json:
        content = {"error": kind, "message": message, "fix": fix, "exit_code": exit_code}
        note(json.dumps(content))
        return
    first, *more = message.split("\n")
    mark = styled("Error:", sys.stderr, fg="red", bold=True)
    _write_note(f"{mark} {visible(first)}")
    for text in more:
        note(text)
    if fix is not None:
        note(f"To mend it: {fix}")


def usage_error(problem: typer.TyperException, *, as_json: bool) -> None:
    """Print what is wrong with the words on the command line."""
    context = getattr(problem, "ctx", None)
    message = problem.format_message()
    if type(problem).__name__ == "NoArgsIsHelpError":
        _write_note(message)  # the whole help text; empty where it was shown already
        return
    fix = None if context is None else f"{context.command_path} --help"
    error("UsageError", visible(message), fix, problem.exit_code, as_json=as_json)


def answer(result: Answer, *, as_json: bool, at_once: bool = False) -> None:
    """Print what a command answers.

    Args:
        result: all of it, or one of many.
        as_json: print its content on one line instead of its text.
        at_once: see :func:`line`.

    Raises:
        typer.Exit: its exit code is not 0.
    """
    if as_json:
        utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        _write(f"{json_text(result.content, ascii_only=not utf8)}\n", at_once=at_once)
    else:
        for part in result.text:
            _write(f"{_shown(part)}\n", at_once=at_once)
    for sentence in result.notes:
        note(sentence)
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def version_json(version: Version) -> dict[str, Any]:
    """Name a version as every command's JSON does."""
    return {"task": version.task, "version": version.version, "digest": version.digest}


def cell(value: object) -> str:
    """Write a value in a table; ``–`` where there is none."""
    return "–" if value is None else str(value)


def share(score: Score | None) -> str:
    """Write right answers as a share; ``–`` where there are none counted."""
    return "–" if score is None else percent(score.correct, score.total)


def problem_lines(problems: Iterable[tuple[str, str, str | None]]) -> list[str]:
    """Write problems, each a place or a kind, a message and what mends it, if anything does."""
    lines = []
    for where, message, fix in problems:
        lines.append(f"{where}: {message}")
        lines += [f"  To mend it: {fix}"] if fix else []
    return lines


def _shown(part: str | Faint | Table) -> str:
    if isinstance(part, Table):
        return _table_text(part)
    if isinstance(part, Faint):
        return visible(part.text) + styled(visible(part.rest), sys.stdout, dim=True)
    return visible(part)


def styled(text: str, stream: Any, **style: Any) -> str:  # noqa: ANN401  # typer's own arguments
    """Colour a text where its stream is a terminal."""
    plain = "NO_COLOR" in os.environ or not stream.isatty()
    return text if plain else typer.style(text, **style)


def _table_text(table: Table) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    title = None if table.title is None else Text(visible(table.title))
    shown = RichTable(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for name in table.columns:
        shown.add_column(
            Text(visible(name.removeprefix(">"))),
            justify="right" if name.startswith(">") else "left",
            overflow="fold",
        )
    for row in table.rows:
        shown.add_row(*(Text(visible(text)) for text in row))  # not markup: names hold brackets
    terminal = sys.stdout.isatty()
    buffer = io.StringIO()
    console = Console(
        file=buffer, force_terminal=terminal, width=None if terminal else _WIDE, highlight=False
    )
    console.print(shown)
    lines = [text.rstrip() for text in buffer.getvalue().splitlines()]
    return "\n".join(lines).strip("\n") + "\n"
