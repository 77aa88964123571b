"""Checking a new task before it is written into the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterbank import catalog
from adapterbank.bank.bank import Bank
from adapterbank.config.bank import Limits, TaskConfig
from adapterbank.data import folders, published
from adapterbank.data.base import SPLITS, label_problems
from adapterbank.data.sources import EMBEDDED
from adapterbank.errors import ConfigError, UnknownName
from adapterbank.inference.artifact import method_config
from adapterbank.training.recipes import RECIPES


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is known of a task's data before anything is decoded or downloaded.

    Args:
        uri: as in the configuration.
        classes: of a folder only.
        counts: images of each split, of a folder only.
        notes: what was left out or done on the way.
    """

    uri: str
    classes: tuple[str, ...] = ()
    counts: Mapping[str, int] | None = None
    notes: str = ""


def relative_uri(data: str, root: Path, here: Path) -> str:
    """Write a folder, as seen from ``here``, relative to the bank where it is inside."""
    if "://" in data:
        return data
    folder = (here / Path(data).expanduser()).resolve()
    return (folder.relative_to(root) if folder.is_relative_to(root) else folder).as_posix()


def check_data(bank: Bank, section: TaskConfig) -> Source:
    """Check that a task's data exists and is what ``prepare`` takes, as far as that is cheap.

    Raises:
        ConfigError: the folder is not laid out as documented, or a split or class has no image;
            every problem is named.
        InputError: no such folder.
        UnknownName: no embedded task, torchvision set or kind of source of that name.
    """
    uri = section.data
    scheme, mark, name = uri.partition("://")
    if not mark:
        limits = bank.config.active.limits if section.classes is None else Limits()
        folder = folders.scan(bank.root / Path(uri).expanduser(), limits=limits, seed=section.seed)
        labels = {split: [file.label for file in folder.files[split]] for split in SPLITS}
        if problems := label_problems(folder.classes, labels):
            raise ConfigError(str(folder.path), problems)
        return Source(
            uri=uri,
            classes=folder.classes,
            counts={split: len(labels[split]) for split in SPLITS},
            notes="; ".join(folder.notes),
        )
    names = {"embedded": catalog.names(EMBEDDED), "torchvision": published.NAMES}
    if scheme not in names:
        raise UnknownName("kind of source", f"{scheme}://", [f"{kind}://" for kind in names])
    if name not in names[scheme]:
        kind = "embedded task" if scheme == "embedded" else "torchvision data set"
        raise UnknownName(kind, name, names[scheme])
    return Source(uri=uri)


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
