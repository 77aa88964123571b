"""A bank with a tracking store: the slow migration runs once, each test gets a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adapterbank.integrations.environment import quiet_environment

quiet_environment()


@pytest.fixture(scope="session")
def migrated_bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from adapterbank.integrations.mlflow.store import (  # noqa: PLC0415  # mlflow is quiet by now
        ensure_store,
    )

    root = tmp_path_factory.mktemp("migrated")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        ensure_store(root)
    return root


@pytest.fixture
def bank(tmp_path: Path, migrated_bank: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the root of an empty bank whose store is ready."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "bank"
    root.mkdir()
    shutil.copy(migrated_bank / "mlflow.db", root / "mlflow.db")
    return root
