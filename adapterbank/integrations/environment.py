"""Environment defaults of the libraries behind this package.

They are read while MLflow, DVC and Ray are imported, so an entry point sets them first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from adapterbank.cores import allowed_cores, usable_cores

DEFAULTS: Final[Mapping[str, str]] = {
    # Nobody's training runs are reported to anybody.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Notes on table migrations are no news to somebody who asked for a training run.
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # MLflow announces a run's page on standard output, where `--json` puts its answer.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A tracking server that is down should be reported in seconds: the default waits minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    # MLflow imports GitPython, which complains at length where there is no git program.
    "GIT_PYTHON_REFRESH": "quiet",
}


def quiet_environment() -> None:
    """Set the defaults that the user has not set.

    Entry points call it before they import anything that imports MLflow, DVC or Ray; child
    processes inherit it. What is already in the environment wins.

    >>> quiet_environment()
    >>> os.environ["DVC_NO_ANALYTICS"] != ""
    True
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    cores = usable_cores()
    if cores < allowed_cores():  # PyTorch and NumPy see which cores are allowed, and no quota
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))
