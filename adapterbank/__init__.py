"""One frozen vision backbone, many small task adapters: a versioned bank with a router.

Importing this package loads no torch; names are imported when they are first used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapterbank.errors import AdapterBankError
    from adapterbank.inference.predictor import Predictor
    from adapterbank.records import (
        Abstention,
        InputSpec,
        Prediction,
        Reference,
        Route,
        Score,
        Traits,
    )
    from adapterbank.registry.store import Registry

__all__ = [
    "Abstention",
    "AdapterBankError",
    "InputSpec",
    "Prediction",
    "Predictor",
    "Reference",
    "Registry",
    "Route",
    "Score",
    "Traits",
]

__version__ = "0.1.0"

_HOMES = {
    "Abstention": "adapterbank.records",
    "AdapterBankError": "adapterbank.errors",
    "InputSpec": "adapterbank.records",
    "Prediction": "adapterbank.records",
    "Predictor": "adapterbank.inference.predictor",
    "Reference": "adapterbank.records",
    "Registry": "adapterbank.registry.store",
    "Route": "adapterbank.records",
    "Score": "adapterbank.records",
    "Traits": "adapterbank.records",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(__all__)
