"""Which source code decides the bits of a training: what it imports, and nothing else."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import grimp
import pytest
import torch

from adapterbank import catalog
from adapterbank.training import code
from adapterbank.training.code import code_digest, sources_of

METHODS = catalog.names("adapterbank.methods")


@cache
def _imports() -> grimp.ImportGraph:
    return grimp.build_graph("adapterbank")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the package's sources, of which the digest is from now on."""
    root = tmp_path / "adapterbank"
    shutil.copytree(code.ROOT, root, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", root)
    return root


@pytest.mark.parametrize("method", METHODS)
def test_it_is_all_that_the_import_graph_leads_to_from_what_runs(method: str) -> None:
    graph, roots = _imports(), {*code.ALWAYS, f"adapterbank.methods.{method}"}
    reached = roots.union(*(graph.find_upstream_modules(root) for root in roots))
    packages = {name for name in reached if graph.find_children(name)}
    assert sources_of(method).keys() == reached - packages


@pytest.mark.parametrize(
    ("file", "decides"),
    [
        ("cli/app.py", False),
        ("release/moves.py", False),
        ("methods/vpt_deep.py", False),
        ("methods/vapt.py", True),
        ("methods/base.py", True),
        ("training/loop.py", True),
        ("backbones/timm_vit.py", True),
        ("data/images.py", True),
    ],
)
def test_a_changed_file_matters_where_a_training_runs_it(
    package: Path, file: str, decides: bool
) -> None:
    before = code_digest("vapt")
    path = package / file
    path.write_text(path.read_text() + "# changed\n")
    assert (code_digest("vapt") != before) == decides


def test_another_pytorch_is_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_digest("vapt")
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert code_digest("vapt") != before
