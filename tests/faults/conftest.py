"""Everything here is for `make test-faults`: it takes minutes and breaks things on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, so that none is in the default suite by oversight."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)
