"""The writes of the registry. All but ``save_weights`` are to be called under its lock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapterbank import durable
from adapterbank.errors import ConflictError, IntegrityError
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.layout import Layout
from adapterbank.registry.manifest import check_files, kind_of
from adapterbank.registry.task_record import TaskRecord, dump_record


def publish(layout: Layout, task: str, digest: str, files: Mapping[str, bytes]) -> None:
    """Have the bytes of a version on the disk; whole ones that are there are adopted.

    Raises:
        IntegrityError: the folder of the task, or of all tasks, leads out of the registry.
    """
    folder, target = layout.versions(task), layout.version(task, digest)
    for path in (folder.parent, folder):
        if path.is_symlink() and path != layout.root:
            raise IntegrityError(f"{path} is a symbolic link; nothing is written through it")
    durable.make_directory(folder)
    durable.remove_temporaries(folder)
    try:
        check_files(target, digest, kind_of(task))
    except IntegrityError:
        durable.replace_directory(target, files)
    else:
        durable.sync_directory(folder)  # its writer may have been killed just before this


def save_record(layout: Layout, record: TaskRecord) -> None:
    """Replace the alias file of a task."""
    path = layout.record(record.task)
    durable.make_directory(path.parent)
    durable.replace_file(path, dump_record(record), alone=True)


def choose_backbone(layout: Layout, record: BackboneRecord) -> None:
    """Write ``backbone.json``, unless versions of another backbone forbid it.

    Raises:
        ConflictError: they do.
    """
    durable.remove_temporaries(layout.root, f"{layout.backbone.name}-")
    old = layout.load_backbone()
    if old == record:
        return
    tasks = layout.tasks()
    if tasks and (old is None or old.fingerprint != record.fingerprint):
        other = "an unknown one" if old is None else f"{old.fingerprint[:12]} ({old.uri})"
        raise ConflictError(
            f"{layout.root} has versions of {len(tasks)} tasks; their backbone is {other}, and"
            f" {record.fingerprint[:12]} ({record.uri}) would make them answer wrongly",
            fix="adapterbank init ANOTHER_DIR, for a bank with the other backbone",
        )
    durable.replace_file(layout.backbone, record.to_json())


def save_weights(root: Path, data: bytes) -> None:
    """Put the backbone's weights in place of what may be there, under the lock of all writers.

    Raises:
        AdapterBankError: the disk is full or read-only.
        ConflictError: another writer holds the lock.
    """
    layout = Layout(root=root)
    with durable.writable(root):
        durable.make_directory(layout.backbone_weights.parent)
        with durable.locked(layout.lock):
            durable.replace_file(layout.backbone_weights, data, alone=True)
