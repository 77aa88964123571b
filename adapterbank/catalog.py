"""From a name to a module: a thing is in the catalogue because its file is in the package.

Nothing registers itself at import, so adding a method is adding a file. (A *registry* is
something else here: the store of trained adapters.)
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType

from adapterbank.errors import UnknownName


@cache
def names(package: str) -> tuple[str, ...]:
    """Names of the public modules in ``package`` (dotted path), sorted.

    ``base`` and names with a leading underscore are the package's own machinery, not entries.
    """
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    public = (module.name for module in modules if not module.name.startswith("_"))
    return tuple(sorted(name for name in public if name != "base"))


def load(package: str, name: str, *, kind: str) -> ModuleType:
    """Import the module that stands for ``name``.

    Raises:
        UnknownName: no file of that name; the message lists the nearest.
    """
    if name not in names(package):
        raise UnknownName(kind, name, names(package))
    return importlib.import_module(f"{package}.{name}")
