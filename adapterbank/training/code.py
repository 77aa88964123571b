"""The source code that decides the bits of a training."""

from __future__ import annotations

import ast
import hashlib
from importlib.metadata import version
from pathlib import Path

import torch

_PACKAGE = "adapterbank"
ROOT = Path(__file__).parents[1]
# What runs in every training: the loop, and the backbone, which the loop knows by its protocol.
ALWAYS = ("adapterbank.training.loop", "adapterbank.backbones.loading")


def code_digest(method: str | None) -> str:
    """Hash the code of a training and the versions of PyTorch and timm.

    Half a training by other code is no training by either; code that no training runs, such as a
    command's, does not matter.

    Args:
        method: name of the adapter's method; None for what all methods share.
    """
    versions = f"torch {torch.__version__} timm {version('timm')}\n"
    digest = hashlib.sha256(versions.encode())
    for name, source in sorted(sources_of(method).items()):
        digest.update(f"{name} {len(source)}\n".encode() + source)
    return digest.hexdigest()


def sources_of(method: str | None) -> dict[str, bytes]:
    """Read the modules of this package that a training imports, directly or not, by their names."""
    sources: dict[str, bytes] = {}
    names = [*ALWAYS, *([] if method is None else [f"adapterbank.methods.{method}"])]
    while names:
        name = names.pop()
        path = ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py")
        if name in sources or not path.is_file():  # a package, or a name within a module
            continue
        sources[name] = path.read_bytes()
        for node in ast.walk(ast.parse(sources[name])):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                inner = (f"{node.module}.{alias.name}" for alias in node.names)
                names += [each for each in (node.module, *inner) if each.startswith(_PACKAGE + ".")]
    return sources
