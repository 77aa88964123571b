"""Hyper-parameter searches on Ray Tune; the only home of ray."""

from __future__ import annotations

from typing import Final

STORAGE: Final = "ADAPTERBANK_STORAGE"
"""The environment variable that says where searches keep their state."""
