"""The router goes with everything that is pushed or pulled, if DVC knows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from adapterbank.errors import AdapterBankError
from adapterbank.records import ROUTER
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from adapterbank.sync.remote import pull, push
from tests.dvc_samples import clone, commit, dvc, make_dvc_bank
from tests.registry_samples import BACKBONE


def register_router(registry: Registry, value: float) -> Version:
    """Register what the registry takes for a router."""
    files = {
        "router.json": json.dumps({"backbone": BACKBONE.fingerprint}).encode(),
        "router.safetensors": save({"mean": np.array([value])}),
    }
    return registry.register(ROUTER, files, actor="a test")


@pytest.mark.slow
def test_a_router_that_dvc_knows_is_carried_and_another_one_is_left(tmp_path: Path) -> None:
    root = tmp_path / "own" / "bank"
    registry = make_dvc_bank(root)
    first = register_router(registry, 1.0)
    registry.promote("router@1", expected=None, actor="a test")
    with (root / "dvc.yaml").open("a") as pipeline:
        pipeline.write(
            "  release:\n    cmd: 'true'\n    outs: [registry/router: {persist: true}]\n"
        )
    dvc(root, "repro", "--quiet")
    commit(root)
    second = register_router(registry, 2.0)  # by hand, since

    carried = [str(version) for version in push(registry).new]
    assert carried == ["digits@1", "digits@2", "textures@1", "router@1"]
    with pytest.raises(AdapterBankError, match="router@2"):
        push(registry, "router@2")

    theirs = clone(root, tmp_path / "own" / "clone")
    assert [str(version) for version in pull(theirs).new] == carried
    assert theirs.verify() == ()
    assert theirs.read(theirs.resolve(ROUTER)) == registry.read(first)
    assert not (theirs.root / ROUTER / second.digest).exists()
