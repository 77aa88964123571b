"""The files of runs, by an address that moves with the bank: ``adapterbank:/<experiment>``.

MLflow writes down for each experiment and run where its files are, for good: nothing but SQL of
one's own changes it later. An absolute path would go on meaning the place a bank was moved or
copied from. This address means ``mlartifacts/`` beside the tracking store, wherever that is.

MLflow finds it by the entry point ``adapterbank`` of ``mlflow.artifact_repository``, its documented
way for stores of one's own, in every process that has this package: ``mlflow ui`` as well.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import quote

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from adapterbank.config.bank import find_bank
from adapterbank.errors import AdapterBankError
from adapterbank.integrations.mlflow.artifacts import start_of_bank

ROOT: Final = "adapterbank:/"
ARTIFACTS: Final = "mlartifacts"

_SQLITE: Final = "sqlite:///"


def files_address(experiment: str) -> str:
    """Return the address of an experiment's files.

    >>> files_address("digits 2/3")
    'adapterbank:/digits%202%2F3'
    """
    return f"{ROOT}{quote(experiment, safe='')}"


def open_run_files(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> LocalArtifactRepository:
    """Open the folder of ``mlartifacts/`` that an address means.

    The bank is the folder of the SQLite file that MLflow uses: for ``mlflow ui`` the one of
    ``--backend-store-uri``. A client of a server needs to stand in the bank, or have
    ``ADAPTERBANK_BANK``.

    Args:
        artifact_uri: ``adapterbank:/<experiment>/…``.
        tracking_uri: MLflow's, where it says so; else its current one.
        registry_uri: MLflow's; not used.

    Raises:
        MlflowException: an address that leads out of the folder, or there is no bank.
    """
    del registry_uri
    path = PurePosixPath(artifact_uri.removeprefix(ROOT))
    if path.is_absolute() or ".." in path.parts:
        raise MlflowException(
            f"{artifact_uri!r} is not {ROOT}<experiment>/…", error_code=INVALID_PARAMETER_VALUE
        )
    store = tracking_uri or mlflow.get_tracking_uri()
    try:
        root = (
            Path(store.removeprefix(_SQLITE)).resolve().parent
            if store.startswith(_SQLITE)
            else find_bank(start_of_bank())
        )
    except AdapterBankError as error:
        raise MlflowException(str(error), error_code=RESOURCE_DOES_NOT_EXIST) from error
    return LocalArtifactRepository((root / ARTIFACTS / path).as_uri())
