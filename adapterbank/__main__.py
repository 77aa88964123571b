"""The program: run a command and turn what goes wrong into one clear message and an exit code.

==  ==============================================================================
0   done
1   a check failed: a gate, a download, an unreadable image among others
2   usage: an argument, a configuration or an input that cannot be used
3   an unknown name; its neighbours are listed
4   integrity: stored bytes are not what was published
5   conflict: somebody else changed the same thing first
6   ``drift`` found that images have changed
70  an error of the program itself; ``ADAPTERBANK_DEBUG=1`` shows where
==  ==============================================================================

130 after an interrupt, 143 after SIGTERM and 141 where nobody reads the output any more, as
shells have it.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import typer

from adapterbank.cli import render
from adapterbank.cli.app import app
from adapterbank.errors import AdapterBankError
from adapterbank.integrations.environment import quiet_environment
from adapterbank.text import visible

INTERRUPTED = 130
TERMINATED = 143
INTERNAL = 70


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what follows the program's name; the process's own if None.

    Returns:
        The exit code.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if arguments is None:
        # As an exception, so that an MLflow run ends as killed rather than running for ever.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    quiet_environment()
    render.prepare_streams()
    try:
        return _run(words)
    except BrokenPipeError:
        return render.silence()


def _run(words: Sequence[str]) -> int:
    as_json = "--json" in words
    try:
        # Not standalone: usage errors come here too, and are reported as all others are.
        result = app(args=words, prog_name="adapterbank", standalone_mode=False)
        render.finish()
    except AdapterBankError as error:
        kind = type(error).__name__
        render.error(kind, error.message, error.fix, error.exit_code, as_json=as_json)
        return error.exit_code
    except typer.TyperException as error:
        render.usage_error(error, as_json=as_json)
        return error.exit_code
    except typer.Abort:
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        with suppress(AdapterBankError, BrokenPipeError):
            render.finish()  # or the interpreter would fail at its end, if this is what failed
        where = f"{error.filename}: " if error.filename else ""
        message = visible(f"{where}{error.strerror or error}")
        render.error(type(error).__name__, message, None, 1, as_json=as_json)
        return _traceback(1)
    except Exception as error:  # noqa: BLE001  # the one place where nothing may escape
        render.error(
            "InternalError",
            visible(f"Internal error: {type(error).__name__}: {error}"),
            "run it again with ADAPTERBANK_DEBUG=1 and report the traceback",
            INTERNAL,
            as_json=as_json,
        )
        return _traceback(INTERNAL)
    return result if isinstance(result, int) else 0


def _traceback(code: int) -> int:
    """Show where the error being handled came from, if that was asked for."""
    if os.environ.get("ADAPTERBANK_DEBUG", "") not in {"", "0"}:
        for text in traceback.format_exc().splitlines():
            render.note(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
