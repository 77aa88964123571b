"""A process that uses a tracking store which may not exist yet: run, model version, alias."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from threading import Barrier

from adapterbank.integrations.mlflow.mirror import mirror_alias, mirror_version
from adapterbank.integrations.mlflow.runs import open_run

TASK = "digits"


def digest_of(version: int) -> str:
    """Return what stands for the digest of a version."""
    return hashlib.sha256(str(version).encode()).hexdigest()


def use_store(root: Path, version: int, start: Barrier | None) -> None:
    """Log a run and show a version with an alias, as training and registration do."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if start is not None:
        start.wait()
    with open_run(root, experiment=TASK, name=f"run {version}", params={"rank": version}) as run:
        run.epoch(1, {"loss": 0.5})
        run.json("metrics.json", {"version": version})
    digest = digest_of(version)
    mirror_version(root, TASK, version, digest, digest[:32], tags={}, run_id=run.run_id)
    mirror_alias(root, TASK, "champion", digest)
