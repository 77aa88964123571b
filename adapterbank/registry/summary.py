"""What a version's files say of it: its configuration, its figures, its sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapterbank.errors import InputError, IntegrityError, NotPulled
from adapterbank.reading import read_object
from adapterbank.records import Score
from adapterbank.registry.adapter_config import AdapterConfig, parse_adapter_config
from adapterbank.registry.manifest import check_files, check_some
from adapterbank.registry.metrics import read_metrics
from adapterbank.registry.store import Registry
from adapterbank.registry.task_record import CHAMPION
from adapterbank.registry.versions import Version

_CONFIG = "adapter_config.json"
_METRICS = "metrics.json"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a version's files say of it; ``sizes`` are bytes by file name."""

    version: Version
    config: AdapterConfig
    metrics: dict[str, Any]
    sizes: dict[str, int]

    @property
    def parameters(self) -> tuple[int, int] | None:
        """Trained parameters of the method and of the head; None where they are not counted."""
        match self.metrics.get("parameters"):
            case {"method": int(method), "head": int(head)}:
                return method, head
        return None


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """A task by its champion's files, or by what is wrong with them."""

    task: str
    version: int | None = None
    digest: str | None = None
    method: str | None = None
    classes: int | None = None
    test: Score | None = None
    linear_probe: Score | None = None
    parameters: dict[str, int] | None = None
    bytes: int | None = None
    versions: int = 0
    problem: str | None = None
    absent: bool = False  # the problem is that the bytes were not pulled yet


def summarise(version: Version, *, whole: bool = False) -> Summary:
    """Read what an adapter's version says of itself; check what is read, or the ``whole``.

    Raises:
        IntegrityError: its bytes are missing or not what was published.
    """
    if whole:
        files = check_files(version.path, version.digest)
        sizes = {name: len(data) for name, data in sorted(files.items())}
    else:
        files, sizes = check_some(version.path, version.digest, (_CONFIG, _METRICS))
    return Summary(
        version=version,
        config=parse_adapter_config(files[_CONFIG], where=str(version.path)),
        metrics=read_metrics(files.get(_METRICS, b"{}"), where=f"{version.path}/{_METRICS}"),
        sizes=sizes,
    )


def read_task(directory: Path) -> str:
    """Read which task the configuration in a folder names, before it is a version.

    Raises:
        InputError: there is no configuration, or it names no task.
        IntegrityError: it is not JSON.
    """
    path = directory / _CONFIG
    try:
        task = read_object(path.read_bytes(), str(path)).get("task")
    except FileNotFoundError as error:
        raise InputError(
            f"{directory} holds no version: {_CONFIG} is missing",
            fix="adapterbank evaluate TASK --trained, which writes work/TASK/version",
        ) from error
    if not isinstance(task, str):
        raise InputError(f"{path} names no task", fix="adapterbank register DIR --task TASK")
    return task


def score_of(metrics: Mapping[str, Any], *path: str) -> Score | None:
    """Find a count in metrics such as ``("linear_probe", "test")``; versions need not have any."""
    part: Any = metrics
    for name in path:
        part = part.get(name) if isinstance(part, Mapping) else None
    match part:
        case {"correct": int(correct), "total": int(total)}:
            return Score(correct=correct, total=total)
    return None


def list_tasks(registry: Registry) -> list[TaskRow]:
    """Describe every task by its champion, or by its number of versions where it has none.

    A version that misses bytes, or whose figures are damaged, is listed with its ``problem``.
    Its tensors are not read: a bank may have a thousand tasks, and ``verify`` is there for that.
    """
    return [_task_row(registry, task) for task in registry.tasks()]


def _task_row(registry: Registry, task: str) -> TaskRow:
    row = TaskRow(task=task)
    try:
        versions, aliases = registry.overview(task)
        row = replace(row, versions=len(versions))
        if CHAMPION not in aliases:
            return row
        version = versions[aliases[CHAMPION] - 1]
        row = replace(row, version=version.version, digest=version.digest)
        summary = summarise(version)
    except IntegrityError as error:
        return replace(row, problem=error.message, absent=isinstance(error, NotPulled))
    counts = summary.parameters
    return replace(
        row,
        method=summary.config.method.name,
        classes=len(summary.config.classes),
        test=score_of(summary.metrics, "test"),
        linear_probe=score_of(summary.metrics, "linear_probe", "test"),
        parameters=None if counts is None else {"method": counts[0], "head": counts[1]},
        bytes=sum(summary.sizes.values()),
    )
