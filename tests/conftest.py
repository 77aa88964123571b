"""Settings of every test: one thread for each process, and the hypothesis profiles."""

from __future__ import annotations

import os

# Tests run in parallel processes; must be set before torch is imported by any of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings

# `ci` finds the same examples on every machine; `HYPOTHESIS_PROFILE=fuzz` looks for new ones.
settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=100,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "fuzz", parent=settings.get_profile("ci"), derandomize=False, max_examples=5000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
