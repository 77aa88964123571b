"""The record of one task: its versions, what each alias means, every move there ever was.

Kept in ``aliases/<task>.json``, newest entries first as ``git log`` has them, so that an addition
is one added line.

History decides: what an alias means, and what a rollback brings back, is computed from it, and a
file whose aliases say something else is refused. The moves of an alias make a stack. A rollback
pops it, so repeated rollbacks walk further back instead of going to and fro; any other move
pushes. ``previous`` is moved by nobody: it always is what a rollback of ``champion`` brings back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, FailFast, Field, JsonValue, TypeAdapter
from pydantic.dataclasses import dataclass

from adapterbank.errors import IntegrityError, UnknownName
from adapterbank.reading import read_document
from adapterbank.registry.backbone import Sha256
from adapterbank.registry.documents import dump_document
from adapterbank.text import is_conflicted

CHAMPION: Final = "champion"
PREVIOUS: Final = "previous"
REFUSE: Final = "refuse"
"""The action of a verdict that moved nothing; like ``register`` it has no alias."""
RETIRE: Final = "retire"
"""The action that takes an alias away, with ``to: null``, because its task was removed."""

_STRICT = ConfigDict(strict=True, extra="forbid", validate_by_name=True, allow_inf_nan=False)
Number = Annotated[int, Field(ge=1)]


@plain_dataclass(frozen=True, kw_only=True)
class Stamp:
    """Who did something, why, and when (ISO 8601, UTC)."""

    actor: str
    reason: str
    time: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Registration:
    """A version of a task: its number, counted in order of registration, and its digest."""

    version: Number
    digest: Sha256


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Event:
    """One line of history. ``step`` gives the order; clocks jump, so ``time`` does not."""

    step: Number
    action: Annotated[str, Field(pattern=r"^[a-z][a-z-]*$")]
    alias: str | None
    from_version: Annotated[Number | None, Field(alias="from")]
    to_version: Annotated[Number | None, Field(alias="to")]
    digest: Sha256
    actor: str
    reason: str
    time: str
    verdict: dict[str, JsonValue] | None = None

    def as_json(self) -> dict[str, Any]:
        """As JSON values, under the names the alias file has for them."""
        unset = {"verdict"} if self.verdict is None else None
        line: dict[str, Any] = _EVENT.dump_python(self, by_alias=True, exclude=unset)
        return line


_EVENT: Final = TypeAdapter(Event)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TaskRecord:
    """All that is known of a task, oldest entries first."""

    schema: Literal[1] = 1
    task: str
    versions: Annotated[tuple[Registration, ...], FailFast()] = ()
    aliases: dict[str, Number] = Field(default_factory=dict)
    history: Annotated[tuple[Event, ...], FailFast()] = ()

    def digest(self, version: int) -> str:
        """Return the digest of a version.

        Raises:
            UnknownName: no version has this number.
        """
        if not 1 <= version <= len(self.versions):
            raise UnknownName(
                "version",
                f"{self.task}@{version}",
                (f"{self.task}@{entry.version}" for entry in self.versions),
                fix=f"adapterbank history {self.task}",
            )
        return self.versions[version - 1].digest

    def find(self, digest: str) -> int | None:
        """Return the number of the version with exactly this digest, if it is registered."""
        return next((e.version for e in self.versions if e.digest == digest), None)


def parse_record(data: bytes, task: str, *, where: str, name: str = "") -> TaskRecord:
    """Read an alias file, which is ``name`` in its registry if it is not a task's.

    Raises:
        IntegrityError: it is no alias file of a known schema, or contradicts itself.
    """
    path = f"registry/{name or f'aliases/{task}.json'}"
    if is_conflicted(data):
        raise IntegrityError(
            f"{where} has a merge conflict: Git has put both clones' lines into it",
            fix="adapterbank merge-aliases",
        )
    fix = f"git checkout HEAD -- {path}"
    stored = read_document(data, TaskRecord, where, fix=fix)
    record = replace(stored, versions=stored.versions[::-1], history=stored.history[::-1])
    problem = _contradiction(record, task)
    if problem is not None:
        raise IntegrityError(f"{where} {problem}", fix=fix)
    return record


def dump_record(record: TaskRecord) -> bytes:
    """Write an alias file: newest entries first, one a line."""
    return dump_document(
        {
            "schema": record.schema,
            "task": record.task,
            "versions": [asdict(entry) for entry in reversed(record.versions)],
            "aliases": dict(sorted(record.aliases.items())),
            "history": [event.as_json() for event in reversed(record.history)],
        }
    )


def replay(history: Iterable[Event]) -> dict[str, int]:
    """Compute from history what every alias must mean."""
    stacks = standing_moves(history)
    aliases = {alias: stack[-1] for alias, stack in sorted(stacks.items()) if stack}
    if len(stacks.get(CHAMPION, ())) > 1:
        aliases[PREVIOUS] = stacks[CHAMPION][-2]
    return aliases


def is_retired(record: TaskRecord) -> bool:
    """Whether a task was removed and nothing was registered or promoted since."""
    deeds = (event.action for event in reversed(record.history) if event.action != REFUSE)
    return next(deeds, None) == RETIRE


def standing_moves(history: Iterable[Event]) -> dict[str, list[int]]:
    """Return the moves of each alias that still stand, oldest first."""
    stacks: dict[str, list[int]] = {}
    for event in history:
        if event.alias is not None:
            apply_move(stacks.setdefault(event.alias, []), event)
    return stacks


def apply_move(stack: list[int], event: Event) -> None:
    """Let one event of an alias follow the moves of it that stand."""
    if event.to_version is None:
        stack.clear()
    elif event.action == "rollback":
        del stack[-1:]
    else:
        stack.append(event.to_version)


def _contradiction(record: TaskRecord, task: str) -> str | None:
    """Say how a record contradicts itself, as an edit by hand may leave it; None if it does not."""
    numbers = [entry.version for entry in record.versions]
    steps = [event.step for event in record.history]
    if record.task != task:
        return f"is about task {record.task!r}, expected {task!r}"
    if not numbers:
        return "names no version"
    if numbers != list(range(1, len(numbers) + 1)):
        return f"numbers its versions {numbers[::-1]}, expected {len(numbers)} down to 1"
    if steps != list(range(1, len(steps) + 1)):
        return f"has history steps that do not go from {len(steps)} down to 1"
    return _disagreement(record)


def _disagreement(record: TaskRecord) -> str | None:
    """Say where versions and aliases are not what history made of them."""
    digests = {entry.digest: entry.version for entry in record.versions}
    if len(digests) != len(record.versions):
        return "gives one digest two numbers"
    registered = 0
    stacks: dict[str | None, list[int]] = {}
    for event in record.history:
        registered += event.action == "register"
        # A removal has no `to`: its digest is what the alias meant, or the newest if it had none.
        meant = event.to_version or event.from_version or registered
        if digests.get(event.digest) != meant:
            return f"gives version {meant} another digest in history step {event.step}"
        stack = stacks.setdefault(event.alias, [])
        if not _can_follow(event, stack):
            return (
                f"has a history step {event.step} that cannot follow those before it:"
                f" {event.action!r} of alias {event.alias!r} from {event.from_version} to"
                f" {event.to_version}"
            )
        apply_move(stack, event)
    stated = replay(record.history)
    if stated != record.aliases:
        return f"says the aliases are {record.aliases}; its history says {stated}"
    return None


def _can_follow(event: Event, stack: list[int]) -> bool:
    """Say whether an event can come where ``stack`` is what stands of its alias's moves."""
    current = stack[-1] if stack else None
    stated = (event.alias is not None, event.from_version, event.to_version)
    match event.action:
        case "register" | "refuse":
            return stated == (False, None, event.to_version) and event.to_version is not None
        case "promote":
            return stated == (True, current, event.to_version) and event.to_version is not None
        case "rollback":
            return len(stack) > 1 and stated == (True, current, stack[-2])
        case "retire":
            return stated == (True, current, None)
    return False  # one that no release writes: a later one would have another schema
