"""One training run in MLflow: parameters, curves, pictures, data, environment and outcome.

A run outlives a process: training opens it, evaluation continues it by its id. Nothing global of
MLflow is used, so several runs may be open in one process.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final, Self

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from adapterbank.cores import usable_cores
from adapterbank.errors import ConflictError, InputError
from adapterbank.integrations.git import git_revision
from adapterbank.integrations.mlflow.store import (
    artifact_location,
    is_displaced,
    open_client,
    reported,
    set_aside,
)

# MLflow's own limits for one request.
_MAX_METRICS: Final = 1000
_MAX_PARAMS: Final = 100
_MAX_TAG: Final = 5000
_MAX_DATASET_DIGEST: Final = 36

_FLUSH_AT: Final = 200  # waiting values; a long training shows up in the UI while it runs
_LIBRARIES: Final = (
    "adapterbank",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "safetensors",
    "mlflow",
    "dvc",
)


class RunLogger:
    """A sink for everything one run leaves behind; use it in a ``with`` statement.

    Leaving the block ends the run: FINISHED, FAILED after an error, KILLED after an interrupt.
    Values of epochs wait in memory and travel together, thirteen times cheaper than one by one.
    """

    def __init__(self, root: Path, client: MlflowClient, run: Run) -> None:
        self._root = root
        self._client = client
        self._run_id: str = run.info.run_id
        self._waiting: list[Metric] = []

    @property
    def run_id(self) -> str:
        """MLflow's id of the run, by which a later stage continues it."""
        return self._run_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.flush()
            with reported(self._root):
                self._client.set_terminated(self._run_id, "FINISHED")
            return
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        # What went wrong in the block is the news; a store that fails as well must not hide it.
        with suppress(MlflowException):
            self._client.log_batch(self._run_id, metrics=self._waiting[:_MAX_METRICS])
            text = f"{type(error).__name__}: {error}"[:_MAX_TAG]
            self._client.set_tag(self._run_id, "adapterbank.error", text)
        with suppress(MlflowException):
            self._client.set_terminated(self._run_id, status)

    def epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """Note the values of one epoch; they are sent by the next flush.

        Args:
            step: the epoch, counted from 1 (0 is the state before training).
            metrics: values by name, such as ``train/loss``.
        """
        now = int(time.time() * 1000)
        self._waiting += [Metric(name, float(value), now, step) for name, value in metrics.items()]
        if len(self._waiting) >= _FLUSH_AT:
            self.flush()

    def steps(self, metric: str) -> frozenset[int]:
        """Return the steps of which the run has a value, sent by this process or another."""
        with reported(self._root):
            history = self._client.get_metric_history(self._run_id, metric)
        return frozenset(value.step for value in history)

    def flush(self) -> None:
        """Send the waiting values."""
        with reported(self._root):
            while self._waiting:
                batch = self._waiting[:_MAX_METRICS]
                self._client.log_batch(self._run_id, metrics=batch)
                del self._waiting[: len(batch)]

    def params(self, params: Mapping[str, str | float]) -> None:
        """Record parameters; each can be set once in the life of a run.

        Raises:
            ConflictError: the run already has another value for one of them.
        """
        with reported(self._root):
            given = self._client.get_run(self._run_id).data.params
            different = [
                f"{name}={given[name]}, not {value}"
                for name, value in params.items()
                if given.get(name, str(value)) != str(value)
            ]
            if different:
                raise ConflictError(
                    f"Run {self._run_id} was started with other parameters: {'; '.join(different)}"
                )
            new = [Param(name, str(params[name])) for name in params if name not in given]
            for start in range(0, len(new), _MAX_PARAMS):
                self._client.log_batch(self._run_id, params=new[start : start + _MAX_PARAMS])

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, such as the digest that came out of the run."""
        batch = [RunTag(name, value[:_MAX_TAG]) for name, value in tags.items()]
        with reported(self._root):
            for start in range(0, len(batch), _MAX_PARAMS):
                self._client.log_batch(self._run_id, tags=batch[start : start + _MAX_PARAMS])

    def figure(self, name: str, png_bytes: bytes) -> None:
        """Attach a picture under ``name``, a relative path that ends in ``.png``."""
        self._file(name, png_bytes)

    def json(self, name: str, content: object) -> None:
        """Attach a JSON document under ``name``, a relative path that ends in ``.json``."""
        self._file(name, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())

    def text(self, name: str, content: str) -> None:
        """Attach a text under ``name``, a relative path such as ``trials.csv``."""
        self._file(name, content.encode())

    def files(self, directory: Path, artifact_path: str) -> None:
        """Attach a copy of a folder under ``artifact_path``."""
        with reported(self._root):
            self._client.log_artifacts(self._run_id, str(directory), str(_inside(artifact_path)))

    def dataset(self, name: str, digest: str, source: str, *, context: str = "training") -> None:
        """Record which data the run used.

        Args:
            name: the task.
            digest: hash of the data. MLflow's field takes 36 characters, so the whole one also
                stands in the source.
            source: where the data came from, such as ``embedded://digits``.
            context: ``training``, ``validation`` or ``testing``.
        """
        data = Dataset(
            name=name,
            digest=digest[:_MAX_DATASET_DIGEST],
            source_type="adapterbank",
            source=json.dumps({"uri": source, "sha256": digest}),
        )
        entry = DatasetInput(data, [InputTag("mlflow.data.context", context)])
        with reported(self._root):
            self._client.log_inputs(self._run_id, datasets=[entry])

    def _file(self, name: str, content: bytes) -> None:
        path = _inside(name)
        with tempfile.TemporaryDirectory() as folder, reported(self._root):
            local = Path(folder) / path.name
            local.write_bytes(content)
            parent = None if path.parent == PurePosixPath() else str(path.parent)
            self._client.log_artifact(self._run_id, str(local), parent)


def open_run(
    root: Path,
    *,
    experiment: str,
    name: str,
    params: Mapping[str, str | int | float],
    tags: Mapping[str, str] | None = None,
    run_id: str | None = None,
) -> RunLogger:
    """Open a run, or continue one.

    MLflow mirrors what happened and must not stop a pipeline: if ``run_id`` is unknown because
    the store was deleted or changed, or its files lie in a bank that this one was moved from, a
    new run is opened that says which one it continues.

    An experiment is made if it is missing, each parameter keeps its first value, and the tags of
    ``environment_tags`` are set besides the given ones.

    Raises:
        AdapterBankError: the store refused or did not answer.
        ConflictError: the continued run has other parameters.
    """
    everything = environment_tags(root) | dict(tags or {})
    with reported(root):
        client = open_client(root)
        run = None if run_id is None else _continued(root, client, run_id)
        if run is None:
            if run_id is not None:
                everything["adapterbank.continues"] = run_id
            experiment_id = _experiment(root, client, experiment)
            # With the tags by which it is found again: a process may be killed at any moment.
            short = {tag: value[:_MAX_TAG] for tag, value in everything.items()}
            run = client.create_run(experiment_id, run_name=name, tags=short)
        else:
            RunLogger(root, client, run).tags(everything)
    logger = RunLogger(root, client, run)
    logger.params(params)
    return logger


def find_runs(root: Path, experiment: str, tags: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Find the runs of an experiment that have all of these tags.

    Returns:
        Tags by run id, newest first; empty where there is no such experiment yet.
    """
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    runs: dict[str, dict[str, str]] = {}
    with reported(root):
        client = open_client(root)
        entry = client.get_experiment_by_name(experiment)
        token = None
        while entry is not None:
            page = client.search_runs([entry.experiment_id], wanted, page_token=token)
            runs |= {run.info.run_id: dict(run.data.tags) for run in page}
            token = page.token
            if not token:
                break
    return runs


def environment_tags(root: Path) -> dict[str, str]:
    """Describe what ran: Git revision of the bank, versions, platform. No host or user names."""
    tags = {
        "adapterbank.python": platform.python_version(),
        "adapterbank.platform": f"{platform.system()} {platform.machine()}",
        "adapterbank.cpus": str(usable_cores()),
        "mlflow.source.name": "adapterbank",
    }
    for library in _LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            tags[f"library.{library}"] = importlib.metadata.version(library)
    state = git_revision(root)
    if state is not None:
        tags["mlflow.source.git.commit"] = state.revision  # shown as the run's source version
        tags["adapterbank.git.dirty"] = str(state.dirty).lower()
    return tags


def _continued(root: Path, client: MlflowClient, run_id: str) -> Run | None:
    try:
        run = client.get_run(run_id)
        if run.info.lifecycle_stage != "active":
            return None  # deleted in the UI
        if is_displaced(root, run.info.artifact_uri or ""):
            return None
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run


def _experiment(root: Path, client: MlflowClient, name: str) -> str:
    """Return the experiment's id; of several processes that make it at once, one wins.

    One that was deleted is restored: what happens is shown, and nothing stops for it.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage != "active":
        # Deleted in MLflow's page, which cannot bring it back, and it keeps the name.
        with suppress(MlflowException):  # another process was first
            client.restore_experiment(experiment.experiment_id)
        experiment = client.get_experiment_by_name(name)
    if experiment is not None and is_displaced(root, experiment.artifact_location):
        set_aside(root, experiment)
        experiment = None
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location(root, name)))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise ConflictError(
            f"MLflow experiment {name!r} was deleted",
            fix="repeat the command, which restores it",
        )
    return str(experiment.experiment_id)


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise InputError(f"{name!r} is not a relative path of an artifact")
    return path
