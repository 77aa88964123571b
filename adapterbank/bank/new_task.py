"""Checking a new task before it is written into the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterbank import catalog
from adapterbank.bank.bank import Bank
from adapterbank.bank.images import UNREADABLE, select
from adapterbank.config.bank import TaskConfig
from adapterbank.data import published
from adapterbank.data.batches import Progress
from adapterbank.data.left_out import LeftOut
from adapterbank.data.scan import scan
from adapterbank.data.sources import EMBEDDED, local_folder
from adapterbank.errors import InputError, UnknownName
from adapterbank.inference.artifact import method_config
from adapterbank.training.recipes import RECIPES


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is known of a task's data before it is prepared.

    Args:
        uri: as in the configuration.
        classes: of a folder only.
        counts: images of each split, of a folder only.
        notes: what was done on the way.
        left_out: files of a folder that are not used.
    """

    uri: str
    classes: tuple[str, ...] = ()
    counts: Mapping[str, int] | None = None
    notes: str = ""
    left_out: tuple[LeftOut, ...] = ()


def relative_uri(data: str, root: Path, here: Path) -> str:
    """Write a folder, as seen from ``here``, relative to the bank where it is inside.

    Raises:
        InputError: it can be no folder's name.
    """
    if "://" in data:
        return data
    try:
        folder = local_folder(data, here).resolve()
    except (OSError, ValueError) as error:  # too long, or with a NUL
        raise InputError(f"--data {data!r}: {error}") from error
    return (folder.relative_to(root) if folder.is_relative_to(root) else folder).as_posix()


def check_source(root: Path, section: TaskConfig) -> Source:
    """Check that a task's data exists and is laid out as documented, without decoding any.

    Raises:
        ConfigError: the folder is not laid out as documented; every problem is named.
        InputError: no such folder.
        UnknownName: no embedded task, torchvision set or kind of source of that name.
    """
    uri = section.data
    scheme, mark, name = uri.partition("://")
    if not mark:
        found = scan(local_folder(uri, root))
        return Source(uri=uri, classes=found.classes, left_out=found.left_out)
    names = {"embedded": catalog.names(EMBEDDED), "torchvision": published.NAMES}
    if scheme not in names:
        raise UnknownName("kind of source", f"{scheme}://", [f"{kind}://" for kind in names])
    if name not in names[scheme]:
        kind = "embedded task" if scheme == "embedded" else "torchvision data set"
        raise UnknownName(kind, name, names[scheme])
    return Source(uri=uri)


def check_data(
    bank: Bank, name: str, section: TaskConfig, progress: Progress | None = None
) -> Source:
    """Check that a task's data is what ``prepare`` takes; all images of a folder are decoded.

    Raises:
        AdapterBankError: what :func:`check_source` raises, and of a folder what preparing would.
    """
    if "://" in section.data:
        return check_source(bank.root, section)
    # Pixels depend on neither mean nor deviation: the backbone, which has its own, may be missing.
    spec = bank.config.backbone.spec((0.0,) * 3, (1.0,) * 3)
    selection = select(bank, section, spec, bank.note(name, UNREADABLE), progress)
    selection.check()
    digests = {split: rows.digests or () for split, rows in selection.splits.items()}
    return Source(
        uri=section.data,
        classes=selection.classes,
        counts={split: len(found) for split, found in digests.items()},
        notes=selection.check_decoded(digests, ()),
        left_out=selection.left_out,
    )


def check_method(method: str, hyper: Mapping[str, Any], train: Mapping[str, Any]) -> None:
    """Check a method's name and hyper-parameters, and the recipe.

    Raises:
        ConfigError: hyper-parameters the method does not take; all are named.
        UnknownName: no such method or recipe.
    """
    method_config(method, hyper, where=f"hyper-parameters of {method}")
    recipe = train.get("recipe")
    if recipe is not None and recipe not in RECIPES:
        raise UnknownName("recipe", str(recipe), RECIPES)
