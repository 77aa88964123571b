"""Everything that is wrong or unfinished in a registry on disk, as a list; nothing is changed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from adapterbank.backbones.identity import check_weights
from adapterbank.durable import TEMPORARY
from adapterbank.errors import AdapterBankError, IntegrityError, NotPulled
from adapterbank.records import ROUTER
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.checks import CANARY, check_sound
from adapterbank.registry.layout import TASK_FILE, Layout, listing
from adapterbank.registry.manifest import check_files, kind_of
from adapterbank.registry.task_record import TaskRecord

ProblemKind: TypeAlias = Literal["damaged", "absent", "unproven", "orphan", "unfinished", "foreign"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is not as it should be.

    ``kind`` is ``damaged`` (the backbone, a registered version or a record cannot be used),
    ``absent`` (a registered version has no bytes here, as in a clone before ``pull``),
    ``unproven`` (a whole version without a canary), ``orphan`` (a whole version that was never
    registered), ``unfinished`` (what a killed writer left) or ``foreign`` (a file that is none of
    the registry's). Only the first two can stop an answer; only an ``unproven`` version could
    give another answer than it gave.
    """

    kind: ProblemKind
    task: str | None
    path: Path
    message: str
    fix: str | None


def check_backbone(layout: Layout) -> tuple[BackboneRecord | None, tuple[Problem, ...]]:
    """Read what the backbone is and check its weights, on which all versions hang.

    Returns:
        what it is, None where that cannot be read; what is wrong with it.
    """
    try:
        record = layout.require_backbone()
    except AdapterBankError as error:
        return None, (_damaged(None, layout.backbone, error),)
    try:
        check_weights(layout.backbone_weights, record.spec, record.arch, record.fingerprint)
    except AdapterBankError as error:
        return record, (_damaged(None, layout.backbone_weights, error),)
    return record, ()


class Load(Protocol):
    """Tries to load a version, which needs what the registry itself does not import."""

    def __call__(
        self, task: str, files: Mapping[str, bytes], record: BackboneRecord, *, where: str
    ) -> None:
        """Raise an IntegrityError where it cannot be loaded."""


def check_version(
    layout: Layout,
    task: str,
    digest: str,
    backbone: BackboneRecord | None,
    load: Load | None = None,
) -> tuple[Problem, ...]:
    """Check every byte of one version and, if ``backbone`` is known, that its content is sound.

    Where ``load`` is given, it is loaded too.
    """
    directory = layout.version(task, digest)
    try:
        files = check_files(directory, digest, kind_of(task))
        if backbone is not None:
            check_sound(task, files, backbone, where=str(directory))
        if backbone is not None and load is not None:
            load(task, files, backbone, where=str(directory))
    except IntegrityError as error:
        return (_damaged(task, directory, error),)
    if task == ROUTER or CANARY in files:
        return ()
    message = f"{directory} has no {CANARY}: nothing proves that it still gives its answers"
    fix = f"dvc repro -f train@{task} && dvc repro, which makes another version of {task}"
    return (Problem(kind="unproven", task=task, path=directory, message=message, fix=fix),)


def survey(layout: Layout, tasks: Iterable[str], *, everything: bool) -> Iterator[Problem]:
    """Check records of tasks, and find what is neither a registered version nor anything else's.

    Nobody may write to the registry meanwhile. With ``everything`` it also finds what belongs to
    no task.
    """
    for task in tasks:
        yield from _survey_task(layout, task)
    if everything:
        yield from _survey_shared(layout)


def _survey_shared(layout: Layout) -> Iterator[Problem]:
    """Find what belongs to no task, in the folders that all of them share."""
    beside = (*listing(layout.root), *listing(layout.backbone_weights.parent))
    yield from (_stranger(None, path) for path in beside if path.name.startswith(TEMPORARY))
    names = (path for path in listing(layout.records) if not TASK_FILE.fullmatch(path.name))
    yield from (_stranger(None, path) for path in names)
    tasks = set(layout.tasks())
    for path in (path for path in listing(layout.root / "adapters") if path.name not in tasks):
        if path.is_symlink() or not path.is_dir() or path.name.startswith(TEMPORARY):
            yield _stranger(None, path)
            continue
        for inside in sorted(path.iterdir()):
            yield _stranger(path.name, inside)


def _survey_task(layout: Layout, task: str) -> Iterator[Problem]:
    try:
        if task == ROUTER:  # one whose writer was killed may have a version, and no record yet
            record = layout.load_record(ROUTER) or TaskRecord(task=ROUTER)
        else:
            record = layout.require_record(task)
    except IntegrityError as error:
        yield _damaged(task, layout.record(task), error)
        return
    try:
        digests = {version.digest for version in record.versions}
        for path in listing(layout.versions(task)):
            if path.name not in digests:
                yield _stranger(task, path)
    except IntegrityError as error:
        yield _damaged(task, layout.versions(task), error)


def _damaged(task: str | None, path: Path, error: AdapterBankError) -> Problem:
    kind: ProblemKind = "absent" if isinstance(error, NotPulled) else "damaged"
    return Problem(kind=kind, task=task, path=path, message=error.message, fix=error.fix)


def _stranger(task: str | None, path: Path) -> Problem:
    kind: ProblemKind
    if path.name.startswith(TEMPORARY):
        kind, what = "unfinished", "was left by a writer that was killed; nothing is served from it"
        fix = "repeat the command that was killed, or: adapterbank gc"
    elif task is not None and _holds_version(task, path):
        kind, what = "orphan", "is a whole version that was never registered; it is not served"
        fix = kind_of(task).adopt.format(shlex.quote(str(path)))
    else:
        kind, what = "foreign", "is not the registry's; nothing is served from it"
        fix = f"mv {shlex.quote(str(path))} somewhere else, after a look at it"
    return Problem(kind=kind, task=task, path=path, message=f"{path} {what}", fix=fix)


def _holds_version(task: str, path: Path) -> bool:
    try:
        check_files(path, path.name, kind_of(task))
    except IntegrityError:
        return False
    return True
