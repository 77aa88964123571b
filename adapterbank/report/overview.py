"""Everything a bank can say of itself at one moment, gathered for ``adapterbank report``.

Nothing is trained, judged anew or changed; test images are only looked at. The same bank gives
the same overview: it holds no time but those of its history, and no path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import TypeAdapter

from adapterbank.bank.bank import Bank
from adapterbank.bank.features import frozen_split
from adapterbank.config.router import RouterConfig
from adapterbank.continual.matrix import MATRIX, Step, read_matrix, summary
from adapterbank.errors import AdapterBankError, FetchError, IntegrityError, UnknownName
from adapterbank.inference.artifact import ADAPTER_MODEL
from adapterbank.inference.predictor import load_bank_backbone
from adapterbank.inference.router_versions import RouterPlan
from adapterbank.inference.routing import TaskRouter
from adapterbank.records import ROUTER, Score
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.manifest import MANIFEST
from adapterbank.registry.summary import score_of, summarise
from adapterbank.registry.task_record import CHAMPION, Event
from adapterbank.registry.versions import Version
from adapterbank.report.routing import RoutingFigures, routing_figures
from adapterbank.training.evaluation import Progress


@dataclass(frozen=True, kw_only=True)
class ChampionView:
    """What a served version's files say of it."""

    version: int
    digest: str
    method: str
    classes: tuple[str, ...]  # names, in the order of the head
    data: str  # where its images came from
    test: Score | None
    probe: Score | None  # of a linear probe of the bare backbone, on the same images
    parameters: tuple[int, int] | None  # of the method and of the head
    adapter_bytes: int  # of the adapter's weights


@dataclass(frozen=True, kw_only=True)
class TaskView:
    """One task; ``champion`` is None where none is served, ``problem`` says what is damaged."""

    task: str
    versions: int
    aliases: dict[str, int]
    champion: ChampionView | None
    history: tuple[Event, ...]
    problem: str | None


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Bytes of one name in the registry: of all its versions, and of those that are served."""

    name: str
    total: int
    served: int


@dataclass(frozen=True, kw_only=True)
class MatrixView:
    """The accuracy matrix and its metrics; ``missing`` says why there is none."""

    steps: tuple[Step, ...]
    summary: dict[str, Any]
    missing: str | None


@dataclass(frozen=True, kw_only=True)
class RouterView:
    """The served router on the prepared test images."""

    version: int | None  # None where none is served
    digest: str | None
    history: tuple[Event, ...]
    figures: RoutingFigures | None
    left_out: dict[str, str]  # why a task is not among the figures, by task
    missing: str | None  # why there are no figures


@dataclass(frozen=True, kw_only=True)
class Overview:
    """A bank at one moment; ``newest`` is the time of the last thing that was done to it."""

    backbone: BackboneRecord | None
    backbone_bytes: int | None
    newest: str | None
    tasks: tuple[TaskView, ...]
    matrix: MatrixView
    router: RouterView
    storage: tuple[Storage, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """What is damaged, a line each."""
        return tuple(
            f"{view.task}: {view.problem}" for view in self.tasks if view.problem is not None
        )

    def as_json(self) -> dict[str, Any]:
        """As JSON values; history is that of ``adapterbank history``."""
        content: dict[str, Any] = TypeAdapter(Overview).dump_python(
            self, mode="json", by_alias=True
        )
        return content


def collect(
    bank: Bank, progress: Progress | None = None, *, device: str | torch.device = "cpu"
) -> Overview:
    """Gather an overview.

    What is missing or damaged is said in its place, so that the rest can be read.

    Args:
        bank: an open bank; only frozen features of prepared test images may be kept in ``work/``.
        progress: told of the images, if any have to be run.
        device: where they are run.
    """
    registry = bank.registry
    try:
        backbone = registry.backbone()
    except FetchError:
        backbone = None
    tasks = tuple(_task(bank, task) for task in registry.tasks())
    router, weights = _router(bank, device, progress), registry.backbone_weights
    events = [*router.history, *(event for view in tasks for event in view.history)]
    return Overview(
        backbone=backbone,
        backbone_bytes=weights.stat().st_size if weights.is_file() else None,
        newest=max((event.time for event in events), default=None),
        tasks=tasks,
        matrix=_matrix(bank),
        router=router,
        storage=tuple(_storage(bank, name) for name in registry.names()),
    )


def _task(bank: Bank, task: str) -> TaskView:
    registry = bank.registry
    try:
        versions, aliases = registry.overview(task)
        history = registry.history(task)
    except IntegrityError as error:
        return TaskView(task=task, versions=0, aliases={}, champion=None, history=(),
                        problem=_message(bank, error))  # fmt: skip
    champion, problem = None, None
    if CHAMPION in aliases:
        try:
            champion = _champion(versions[aliases[CHAMPION] - 1])
        except IntegrityError as error:
            problem = _message(bank, error)
    return TaskView(task=task, versions=len(versions), aliases=aliases, champion=champion,
                    history=history, problem=problem)  # fmt: skip


def _message(bank: Bank, error: AdapterBankError) -> str:
    """What went wrong, with places named from the bank's folder on."""
    return error.message.replace(f"{bank.root}/", "")


def _champion(version: Version) -> ChampionView:
    summary = summarise(version)
    return ChampionView(
        version=version.version,
        digest=version.digest,
        method=summary.config.method.name,
        classes=summary.config.classes,
        data=summary.config.data.source,
        test=score_of(summary.metrics, "test"),
        probe=score_of(summary.metrics, "linear_probe", "test"),
        parameters=summary.parameters,
        adapter_bytes=summary.sizes[ADAPTER_MODEL],
    )


def _matrix(bank: Bank) -> MatrixView:
    try:
        matrix = read_matrix(bank.root)
    except IntegrityError as error:
        return MatrixView(steps=(), summary={}, missing=_message(bank, error))
    missing = None if matrix.steps else f"{MATRIX} has no step yet"
    return MatrixView(steps=matrix.steps, summary=summary(matrix), missing=missing)


def _router(bank: Bank, device: str | torch.device, progress: Progress | None) -> RouterView:
    left_out: dict[str, str] = {}
    view = RouterView(
        version=None, digest=None, history=(), figures=None, left_out=left_out, missing=None
    )
    try:
        view = replace(view, history=bank.registry.history(ROUTER))
        version, router = TaskRouter(bank.registry).current()
        view = replace(view, version=version.version, digest=version.digest)
        backbone = load_bank_backbone(bank.registry, device)
        # Of all tasks: only a pooled router needs them, to be built without one of its tasks.
        records = RouterPlan.of(bank.registry, RouterConfig()).champions(bank.registry).records
        features = {}
        for task in router.tasks:
            try:
                split = frozen_split(bank, backbone, task, "test", router.blocks, progress)
                features[task] = split.features.numpy()
            except AdapterBankError as error:
                left_out[task] = _message(bank, error)
        if not features:
            return replace(view, missing="no task of the router has prepared images here")
        return replace(view, figures=routing_figures(router, records, features))
    except (FetchError, UnknownName):
        return replace(view, missing="the bank has no router yet")
    except AdapterBankError as error:
        return replace(view, missing=_message(bank, error))


def _storage(bank: Bank, name: str) -> Storage:
    """Add up what a name's versions hold on this disk."""
    try:
        versions, aliases = bank.registry.overview(name)
    except (IntegrityError, UnknownName):
        return Storage(name=name, total=0, served=0)
    sizes = {version.version: _bytes(version) for version in versions}
    served = sizes.get(aliases.get(CHAMPION, 0), 0)
    return Storage(name=name, total=sum(sizes.values()), served=served)


def _bytes(version: Version) -> int:
    if not (version.path / MANIFEST).is_file():
        return 0
    return sum(path.stat().st_size for path in version.path.iterdir() if path.is_file())
