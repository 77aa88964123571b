"""Mending what mirroring alone cannot: model versions whose tags or source were changed."""

from __future__ import annotations

from pathlib import Path

from adapterbank.integrations.mlflow.mirror import DIGEST_TAG
from adapterbank.integrations.mlflow.store import open_client, reported, store_lock


def tag_digest(root: Path, task: str, number: int, digest: str) -> None:
    """Give a model version the tag that links it to the registry back.

    Args:
        root: the bank.
        task: the registered model's name.
        number: MLflow's number of the version.
        digest: what the tag is to say.

    Raises:
        AdapterBankError: the store refused or did not answer.
    """
    with reported(root):
        client = open_client(root)
        with store_lock(root):
            client.set_model_version_tag(task, str(number), DIGEST_TAG, digest)


def drop_version(root: Path, task: str, number: int) -> None:
    """Delete a model version, whose source MLflow does not let anybody change; no bytes go.

    Args:
        root: the bank.
        task: the registered model's name.
        number: MLflow's number of the version.

    Raises:
        AdapterBankError: the store refused or did not answer.
    """
    with reported(root):
        client = open_client(root)
        with store_lock(root):
            client.delete_model_version(task, str(number))
