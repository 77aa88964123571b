"""Options that many commands share, and the bank they mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapterbank.errors import ConfigError, InputError
from adapterbank.records import BANK_VARIABLE

if TYPE_CHECKING:
    from adapterbank.bank.bank import Bank
    from adapterbank.registry.store import Registry

_DEVICES = "Where to run: auto (a GPU where there is one), cpu, cuda or cuda:N"

Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help=f"{_DEVICES}.")]
"""Of commands that read the registry alone."""

BankDevice = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help=f"{_DEVICES}; what train.device of the bank's profile says by default.",
    ),
]
"""Of commands that read the configuration too; None is the bank's own."""

AcceptClasses = Annotated[
    bool,
    typer.Option("--accept-classes", help="Although its classes are not the champion's."),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH",
        help="Files, folders (with all below), quoted patterns, or - for paths from standard"
        " input, one a line.",
    ),
]

BankDir = Annotated[
    Path | None,
    typer.Option(
        "--bank",
        metavar="DIR",
        envvar=BANK_VARIABLE,
        help="The bank, or a folder in it; the current folder's by default.",
    ),
]


def bank_root(given: Path | None) -> Path:
    """Find the root of the bank a command is about.

    Raises:
        InputError: there is none.
    """
    from adapterbank.config.bank import find_bank

    if given is not None and not given.is_dir():
        raise InputError(
            f"{given}: no such folder, expected a bank", fix=f"adapterbank init {given}"
        )
    return find_bank(given or Path.cwd())


def open_bank(given: Path | None) -> Bank:
    """Open the bank a command is about, with its configuration.

    Raises:
        InputError: there is none.
        ConfigError: its configuration has problems.
    """
    from adapterbank.bank.bank import Bank

    return Bank.open(bank_root(given))


def open_registry(given: Path | None) -> Registry:
    """Open only the registry, for commands that work whatever the configuration says.

    Raises:
        InputError: there is none.
    """
    from adapterbank.registry.store import Registry

    return Registry.open(bank_root(given) / "registry")


def key_values(pairs: list[str], option: str) -> dict[str, Any]:
    """Parse ``key=value`` words; values are YAML, so that 3, 0.5, true and [1, 2] are meant.

    Raises:
        InputError: a word has no key, no ``=``, a repeated key or a value that is not YAML.
    """
    from adapterbank.config.yaml import read_yaml

    values: dict[str, Any] = {}
    for pair in pairs:
        key, mark, text = pair.partition("=")
        if not key or not mark or key in values:
            reason = "given twice" if key in values else "expected KEY=VALUE"
            raise InputError(f"{option} {pair}: {reason}")
        try:
            values[key] = read_yaml(text, option)
        except ConfigError as error:
            raise InputError(f"{option} {pair}: the value is not YAML") from error
    return values
