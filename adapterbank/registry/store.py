"""The registry: what ``adapterbank`` knows how to answer with.

>>> registry = Registry.open("registry")                                # doctest: +SKIP
>>> version = registry.register("dtd", files, reason="first")           # doctest: +SKIP
>>> registry.promote("dtd@1", expected=None, reason="the first one")    # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from adapterbank import durable
from adapterbank.errors import ConflictError, InputError, IntegrityError, UnknownName
from adapterbank.records import ROUTER, Reference, check_task_name
from adapterbank.registry.aliases import (
    ANY,
    Expected,
    add_verdict,
    add_version,
    as_reference,
    find_version,
    move_alias,
    retire,
    roll_back,
)
from adapterbank.registry.backbone import BackboneRecord
from adapterbank.registry.checks import check_proof, check_sound
from adapterbank.registry.layout import Layout
from adapterbank.registry.manifest import (
    MANIFEST,
    build_manifest,
    check_files,
    kind_of,
    read_folder,
    version_digest,
)
from adapterbank.registry.publish import choose_backbone, publish, save_record
from adapterbank.registry.task_record import CHAMPION, Event, Stamp, TaskRecord
from adapterbank.registry.verify import Load, Problem, check_backbone, check_version, survey
from adapterbank.registry.versions import Move, Version, current_actor, utc_now

Files: TypeAlias = Mapping[str, bytes]  # content by name


class Registry:
    """Immutable versions by digest, aliases by compare-and-swap, a history of every move.

    Holds no state but its folder, and whether there was one yet, so one instance may be used by
    many threads, and many processes may use one folder. Readers take no lock: versions never change
    and alias files are replaced at once. Writers take one lock for the whole registry.
    """

    def __init__(
        self, root: Path, *, new: bool = False, clock: Callable[[], str] = utc_now
    ) -> None:
        self._layout = Layout(root=root, new=new)
        self._clock = clock

    @classmethod
    def open(
        cls, path: str | Path, *, create: bool = False, clock: Callable[[], str] = utc_now
    ) -> Registry:
        """Open the registry in a folder.

        Args:
            path: the ``registry`` folder of a bank.
            create: where there is no folder yet, the first write makes it.
            clock: tells the time for history.

        Raises:
            InputError: there is no such folder, or it is a whole bank.
        """
        if not isinstance(path, str | Path):
            raise InputError(f"expected the folder of a registry, got a {type(path).__name__}")
        root = Path(path).absolute()
        if (root / "pipelines").is_dir() and (root / "registry").is_dir():
            raise InputError(f"{root} is a bank; its registry is the folder {root / 'registry'}")
        new = create and not root.exists()
        if not new and not root.is_dir():
            raise InputError(
                f"{root} is no registry: there is no such folder", fix="adapterbank init"
            )
        return cls(root, new=new, clock=clock)

    @property
    def root(self) -> Path:
        """The folder of the registry."""
        return self._layout.root

    @property
    def backbone_weights(self) -> Path:
        """Where the weights of the backbone are kept; the file may be absent."""
        return self._layout.backbone_weights

    def tasks(self) -> tuple[str, ...]:
        """Names of all tasks, sorted."""
        return self._layout.tasks()

    def names(self) -> tuple[str, ...]:
        """Whatever has versions: all tasks, then the router if there is anything of one."""
        return self._layout.names()

    def versions(self, task: str) -> tuple[Version, ...]:
        """All versions of a task, oldest first."""
        return self.overview(task)[0]

    def overview(self, task: str) -> tuple[tuple[Version, ...], dict[str, int]]:
        """All versions of a task and what its aliases mean, at one moment."""
        record = self._layout.require_record(check_task_name(task))
        versions = tuple(self._version(record, entry.version) for entry in record.versions)
        return versions, dict(record.aliases)

    def aliases(self, task: str) -> dict[str, int]:
        """What each alias of a task means, by version number."""
        return dict(self._layout.require_record(check_task_name(task)).aliases)

    def history(self, task: str) -> tuple[Event, ...]:
        """Everything that was done to a task, oldest first."""
        return self._layout.require_record(check_task_name(task)).history

    def resolve(self, ref: str | Reference) -> Version:
        """Find the version a reference means at this moment.

        Raises:
            InputError: no reference, or a digest prefix that several versions share.
            IntegrityError: the alias file is damaged.
            UnknownName: no such task, version or alias.
        """
        reference = as_reference(ref)
        record = self._layout.require_record(reference.task)
        return self._version(record, find_version(record, reference))

    def read(self, version: Version) -> dict[str, bytes]:
        """Read all files of a version, ``manifest.json`` included, every byte checked.

        Raises:
            IntegrityError: a file is missing, extra, linked or altered; it is named.
        """
        kind = kind_of(version.task)
        return check_files(self._layout.version(version.task, version.digest), version.digest, kind)

    def backbone(self) -> BackboneRecord:
        """Return what the backbone of all versions is.

        Raises:
            FetchError: none was chosen yet.
            IntegrityError: ``backbone.json`` is damaged.
        """
        return self._layout.require_backbone()

    def set_backbone(self, record: BackboneRecord) -> None:
        """Choose the backbone; it stays as long as any version was trained on it.

        Raises:
            ConflictError: there are versions of another backbone.
        """
        with self._writing():
            choose_backbone(self._layout, record)

    def register(
        self,
        task: str,
        files: Files,
        *,
        actor: str | None = None,
        reason: str = "",
    ) -> Version:
        """Publish a version. The same bytes are the same version, however often they come.

        The bytes are on the disk under their digest before anything names them. A process killed
        in between leaves a version nobody can see; registering the same bytes again adopts it, and
        mends a version whose folder was damaged or deleted.

        Args:
            task: name of the task, new or known.
            files: content by file name; a ``manifest.json`` among them must be the right one.
            actor: who does it; the current user if None.
            reason: why, for the history.

        Raises:
            AdapterBankError: the disk is full or read-only.
            BackboneMismatch: trained on another backbone.
            FetchError: the registry has no backbone yet.
            IntegrityError: the files do not make a sound version.
        """
        payload = {name: data for name, data in files.items() if name != MANIFEST}
        manifest = build_manifest(payload, kind_of(check_task_name(task)))
        if files.get(MANIFEST, manifest) != manifest:
            raise IntegrityError(f"{MANIFEST} of the new version of {task!r} is not of these files")
        backbone = self.backbone()
        check_sound(task, payload, backbone, where=f"the new version of {task!r}")
        digest = version_digest(manifest)
        with self._writing():
            if self.backbone() != backbone:
                raise ConflictError(
                    f"The backbone of {self.root} was changed meanwhile", fix="repeat the command"
                )
            record = self._layout.load_record(task) or TaskRecord(task=task)
            number = record.find(digest)
            if number is None and task != ROUTER:
                check_proof(payload, where=f"the new version of {task!r}")
            publish(self._layout, task, digest, {**payload, MANIFEST: manifest})
            if number is None:
                record = add_version(record, digest, self._stamp(actor, reason))
                save_record(self._layout, record)
            return self._version(record, number or len(record.versions))

    def register_directory(
        self,
        directory: str | Path,
        *,
        task: str,
        actor: str | None = None,
        reason: str = "",
    ) -> Version:
        """Publish the version whose files lie in ``directory``; see ``register``.

        Raises:
            IntegrityError: the folder holds anything but the files of a version.
        """
        return self.register(task, read_folder(Path(directory)), actor=actor, reason=reason)

    def promote(
        self,
        ref: str | Reference,
        *,
        expected: Expected,
        alias: str = CHAMPION,
        actor: str | None = None,
        reason: str = "",
        verdict: Mapping[str, Any] | None = None,
        files: Files | None = None,
    ) -> Move:
        """Move an alias to a registered version, if it still means what the caller believes.

        The bytes of the version are checked first. Where the alias already means the version (and
        ``expected`` holds), nothing is written and ``moved`` is False.

        Args:
            ref: the version.
            expected: number of the version the alias is believed to mean; None: it does not exist
                yet; ``ANY``: do not compare.
            alias: the alias to move.
            actor: who does it; the current user if None.
            reason: why, for the history.
            verdict: what the gates said, kept in the history.
            files: what ``read`` has just given of the version; read here if None.

        Raises:
            ConflictError: somebody else moved the alias first; names the version that has it.
            InputError: no alias that can be moved.
            IntegrityError: the version's bytes are not what was published.
            UnknownName: no such task, version or alias.
        """
        reference = as_reference(ref)
        with self._writing():
            record = self._layout.require_record(reference.task)
            number = find_version(record, reference)
            stamp = self._stamp(actor, reason)
            moved = move_alias(record, alias, number, expected, stamp, verdict)
            return self._finish_move(record, moved, alias, files)

    def rollback(
        self,
        task: str,
        *,
        alias: str = CHAMPION,
        expected: Expected = ANY,
        actor: str | None = None,
        reason: str = "",
    ) -> Move:
        """Move an alias back to the version it had before; repeated, further back.

        Raises:
            ConflictError: the alias does not mean ``expected``.
            InputError: there is no earlier version.
            IntegrityError: the earlier version's bytes are not what was published.
            UnknownName: no such task or alias.
        """
        check_task_name(task)
        with self._writing():
            record = self._layout.require_record(task)
            moved = roll_back(record, alias, expected, self._stamp(actor, reason))
            return self._finish_move(record, moved, alias)

    def retire(self, task: str, *, actor: str | None = None, reason: str = "") -> tuple[Event, ...]:
        """Take all aliases of a task away; versions and history stay.

        Returns:
            what was added to history; nothing where the task is retired already.

        Raises:
            UnknownName: no such task.
        """
        check_task_name(task)
        with self._writing():
            record = self._layout.require_record(task)
            retired = retire(record, self._stamp(actor, reason))
            save_record(self._layout, retired)
            return retired.history[len(record.history) :]

    def record_verdict(
        self,
        ref: str | Reference,
        verdict: Mapping[str, Any],
        *,
        actor: str | None = None,
        reason: str = "",
    ) -> Event:
        """Keep in history why a version was refused; no alias moves.

        Raises:
            UnknownName: no such task, version or alias.
        """
        reference = as_reference(ref)
        with self._writing():
            record = self._layout.require_record(reference.task)
            number = find_version(record, reference)
            refused = add_verdict(record, number, verdict, self._stamp(actor, reason))
            save_record(self._layout, refused)
            return refused.history[-1]

    def put_record(self, record: TaskRecord) -> None:
        """Replace the record of a task by the one that two clones' records were merged to."""
        with self._writing():
            save_record(self._layout, record)

    def verify(
        self,
        ref: str | Reference | None = None,
        *,
        load: Load | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[Problem, ...]:
        """Check every byte, the backbone's first, and find everything unfinished. Changes nothing.

        Args:
            ref: a version; a bare task name means all of that task; None means everything.
            load: tries to load each version that is sound, so that none has what no method can
                load; see :func:`adapterbank.inference.loads.check_loads`.
            progress: called with the versions checked so far and in all.

        Returns:
            what is wrong, in the order of tasks; empty if all is well.
        """
        chosen, problems = list[Version](), list[Problem]()
        if isinstance(ref, Reference) or (isinstance(ref, str) and "@" in ref):
            chosen.append(self.resolve(ref))
        else:
            tasks = self.names() if ref is None else (as_reference(ref).task,)
            for task in tasks:
                with suppress(IntegrityError, UnknownName):  # the survey tells of records
                    chosen += self.versions(task)
            with self._undisturbed():
                problems += survey(self._layout, tasks, everything=ref is None)
        backbone, no_backbone = check_backbone(self._layout)
        problems += no_backbone if chosen else ()
        for count, version in enumerate(chosen, start=1):
            problems += check_version(self._layout, version.task, version.digest, backbone, load)
            if progress is not None:
                progress(count, len(chosen))
        return tuple(sorted(problems, key=lambda p: (p.task or "", str(p.path))))

    def _version(self, record: TaskRecord, number: int) -> Version:
        digest = record.digest(number)
        path = self._layout.version(record.task, digest)
        return Version(task=record.task, version=number, digest=digest, path=path)

    def _stamp(self, actor: str | None, reason: str) -> Stamp:
        who = current_actor() if actor is None else actor
        return Stamp(actor=who, reason=reason, time=self._clock())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Be the only writer."""
        with durable.writable(self.root):
            if self._layout.new:
                durable.make_directory(self.root)
                self._layout = replace(self._layout, new=False)  # from now on it can be missed
            with durable.locked(self._layout.lock):
                yield

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Keep writers away, so that what looks unfinished is; nobody writes a read-only disk."""
        with ExitStack() as stack:
            with suppress(OSError):
                stack.enter_context(durable.locked(self._layout.lock))
            yield

    def _finish_move(
        self, before: TaskRecord, after: TaskRecord, alias: str, files: Files | None = None
    ) -> Move:
        version = self._version(after, after.aliases[alias])
        moved = after is not before
        if moved:
            where = str(version.path)
            check_sound(version.task, files or self.read(version), self.backbone(), where=where)
            save_record(self._layout, after)
        return Move(
            alias=alias,
            before=before.aliases.get(alias),
            after=version,
            moved=moved,
            event=after.history[-1] if moved else None,
        )
