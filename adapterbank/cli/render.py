"""Everything that formats: tables, JSON, messages and errors.

Answers go to standard output, everything else to standard error. Where standard output is no
terminal, tables are as wide as they need to be and lines are never folded.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from adapterbank.records import Prediction, Route

UNREAD = 141  # 128 + SIGPIPE, what a shell reports of a program that nobody reads
_WIDE = 10_000


def prepare_streams() -> None:
    """Let characters that the terminal cannot show be escaped rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence() -> int:
    """Stop writing to a standard output that nobody reads, and return the exit code for it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())  # the interpreter flushes at its end once more
    os.close(null)
    return UNREAD


@contextmanager
def answers_diverted() -> Iterator[None]:
    """Let what child processes answer in the block go to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def flush() -> None:
    """Write out what is buffered, so that a closed pipe is noticed in time.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    sys.stdout.flush()


def line(text: str = "", *, at_once: bool = False) -> None:
    """Print one line of an answer.

    Args:
        text: without a line break at its end.
        at_once: do not wait for more; for streams that a person or a program follows.
    """
    try:
        sys.stdout.write(f"{text}\n")
        if at_once:
            sys.stdout.flush()
    except BrokenPipeError as error:
        raise typer.Exit(silence()) from error


def note(text: str) -> None:
    """Print one line about the work rather than of the answer, on standard error."""
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def print_json(content: Mapping[str, Any], *, at_once: bool = False) -> None:
    """Print one object on one line; NaN and infinities, which JSON cannot say, become null."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    line(json.dumps(_finite(content), ensure_ascii=not utf8, allow_nan=False), at_once=at_once)


def error(kind: str, message: str, fix: str | None, exit_code: int, *, as_json: bool) -> None:
    """Print what went wrong, and what mends it, on standard error.

    Args:
        kind: name of the error, for programs.
        message: what is wrong.
        fix: the command or edit that mends it.
        exit_code: what the program will end with.
        as_json: print one object instead of text.
    """
    if as_json:
        content = {"error": kind, "message": message, "fix": fix, "exit_code": exit_code}
        note(json.dumps(content))
        return
    note(f"{_styled('Error:', sys.stderr, fg='red', bold=True)} {message}")
    if fix is not None:
        note(f"To mend it: {fix}")


def usage_error(problem: typer.TyperException, *, as_json: bool) -> None:
    """Print what is wrong with the words on the command line."""
    context = getattr(problem, "ctx", None)
    message = problem.format_message()
    if type(problem).__name__ == "NoArgsIsHelpError":
        note(message)  # the whole help text; empty where it was shown already
        return
    fix = None if context is None else f"{context.command_path} --help"
    error("UsageError", message, fix, problem.exit_code, as_json=as_json)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None
) -> None:
    """Print a table; columns whose name starts with ``>`` stand to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for name in columns:
        shown.add_column(
            name.removeprefix(">"),
            justify="right" if name.startswith(">") else "left",
            overflow="fold",
        )
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))  # not markup: names may hold brackets
    terminal = sys.stdout.isatty()
    buffer = io.StringIO()
    console = Console(
        file=buffer, force_terminal=terminal, width=None if terminal else _WIDE, highlight=False
    )
    console.print(shown)
    lines = [text.rstrip() for text in buffer.getvalue().splitlines()]
    line("\n".join(lines).strip("\n") + "\n")


def prediction(answer: Prediction, *, image_width: int, label_width: int) -> str:
    """Format one answer as a line; the other labels follow the best one."""
    others = "  ".join(f"{label} {probability:.1%}" for label, probability in answer.top_k[1:])
    named = answer.label if answer.route is None else f"{answer.task}: {answer.label}"
    best = f"{named:<{label_width}}"
    text = f"{answer.image:<{image_width}}  {best}  {answer.probability:>6.1%}"
    return f"{text}   {_styled(others, sys.stdout, dim=True)}" if others else text


def route(image: str, found: Route, *, image_width: int) -> str:
    """Format a route as a line: the task, how unusual the image is for it, the others."""
    told = "no known task" if found.task is None else found.task
    if found.outcome == "ambiguous":
        told += "?"
    shares = "  ".join(f"{task} {share:.1%}" for task, share in found.candidates)
    text = f"{image:<{image_width}}  {told:<20}  p {found.p_value:.3f}  lead {found.margin:>6.1%}"
    return f"{text}   {_styled(shares, sys.stdout, dim=True)}"


def _styled(text: str, stream: Any, **style: Any) -> str:  # noqa: ANN401  # typer's own arguments
    plain = "NO_COLOR" in os.environ or not stream.isatty()
    return text if plain else typer.style(text, **style)


def _finite(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
