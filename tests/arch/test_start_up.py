"""What must start fast loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.source import PACKAGE, ROOT

HEAVY = ("dvc", "matplotlib", "mlflow", "ray", "skimage", "sklearn", "timm", "torch", "torchvision")
LIGHT = ("adapterbank", "adapterbank.catalog", "adapterbank.config.bank", "adapterbank.registry")
COMMANDS = tuple(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE
    if path.parent.name == "cli" or path.name == "__main__.py"
)
REGISTRY = tuple(
    f"adapterbank.registry.{path.stem}"
    for path in PACKAGE
    if path.parent.name == "registry" and path.name != "__init__.py"
)


@pytest.mark.parametrize("modules", [LIGHT, REGISTRY, COMMANDS], ids=["core", "registry", "cli"])
def test_importing_loads_nothing_heavy(modules: tuple[str, ...]) -> None:
    program = "\n".join(
        [
            "import importlib, sys",
            f"for name in {modules!r}:",
            "    importlib.import_module(name)",
            f"    heavy = sys.modules.keys() & set({HEAVY!r})",
            "    assert not heavy, f'{name} loads {sorted(heavy)}'",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
