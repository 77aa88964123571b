"""Checking a new task before it is written into the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterbank import catalog
from adapterbank.bank.bank import Bank
from adapterbank.data import folders, published
from adapterbank.data.base import SPLITS, Limits
from adapterbank.data.sources import EMBEDDED
from adapterbank.errors import UnknownName
from adapterbank.inference.artifact import method_config
from adapterbank.training.recipes import RECIPES


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is known of a source before anything is decoded or downloaded.

    ``classes`` and ``counts`` are of folders only.
    """

    uri: str
    classes: tuple[str, ...] = ()
    counts: Mapping[str, int] | None = None
    notes: str = ""


def relative_uri(data: str, root: Path, here: Path) -> str:
    """Write a folder as the configuration should: relative to the bank where it is inside.

    Args:
        data: a URI, which stays as it is, or a folder.
        root: the bank.
        here: what a relative folder is relative to.
    """
    if "://" in data:
        return data
    folder = (here / Path(data).expanduser()).resolve()
    return (folder.relative_to(root) if folder.is_relative_to(root) else folder).as_posix()


def check_data(bank: Bank, uri: str, *, seed: int) -> Found:
    """Check that a source exists and is laid out as it must be.

    Raises:
        ConfigError: the folder is not laid out as documented; every problem is named.
        InputError: no such folder.
        UnknownName: no embedded task, torchvision set or kind of source of that name.
    """
    scheme, mark, name = uri.partition("://")
    if not mark:
        limits = Limits(**bank.config.active.limits.model_dump())
        folder = folders.scan(bank.root / Path(uri), limits=limits, seed=seed)
        return Found(
            uri=uri,
            classes=folder.classes,
            counts={split: len(folder.files[split]) for split in SPLITS},
            notes="; ".join(folder.notes),
        )
    if scheme == "embedded":
        known = catalog.names(EMBEDDED)
        if name not in known:
            raise UnknownName("embedded task", name, known)
    elif scheme == "torchvision":
        if name not in published.NAMES:
            raise UnknownName("torchvision data set", name, published.NAMES)
    else:
        raise UnknownName("kind of source", f"{scheme}://", ("embedded://", "torchvision://"))
    return Found(uri=uri)


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
