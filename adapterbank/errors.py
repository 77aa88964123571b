"""Every error a user can meet, as one tree.

Each class fixes an exit code for the command line; each instance says what is wrong, where, what
was got against what was expected, and the command that mends it::

    AdapterBankError            1  a check failed
    ├── TrainingDiverged        1  the loss became NaN or infinite; the last good state is kept
    ├── GateRefused             1  a version did not pass a gate
    ├── FetchError              1  a download or an optional package is missing
    ├── InputError              2  an argument, a configuration or an image is unusable
    │   ├── ConfigError         2  all problems of one configuration file at once
    │   └── ImageError          2  one image that cannot be decoded
    ├── UnknownName             3  a task, version, alias, method or backbone nobody knows
    ├── IntegrityError          4  stored bytes are not what was published
    │   ├── NotPulled           4  a registered version whose bytes are not here yet
    │   ├── BackboneMismatch    4  the adapter was trained on another backbone
    │   └── CanaryMismatch      4  the same bytes answer differently than when published
    └── ConflictError           5  somebody else changed the same thing first
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from adapterbank.text import visible


class AdapterBankError(Exception):
    """Base of all errors raised on purpose.

    Whatever names are in them, ``message`` and ``fix`` have nothing that a terminal would obey.

    Args:
        message: what is wrong, where, got against expected.
        more: further lines of the message.
        fix: the command or edit that mends it; printed on a line of its own.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, more: Iterable[str] = (), fix: str | None = None) -> None:
        self.message = "\n".join(map(visible, (message, *more)))
        self.fix = None if fix is None else visible(fix)
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message if self.fix is None else f"{self.message}\nTo mend it: {self.fix}"


class TrainingDiverged(AdapterBankError):
    """The loss or a gradient became NaN or infinite.

    ``last_good`` is the adapter's state (tensors by name) after the last whole epoch.
    """

    last_good: Mapping[str, Any] | None = None


class GateRefused(AdapterBankError):
    """A version did not pass a gate and was not promoted."""


class FetchError(AdapterBankError):
    """Something could not be fetched: a wheel, a hub file, an optional package."""


class InputError(AdapterBankError):
    """Bad input from a user: an argument, a folder, a file."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration with one or more problems, all reported together.

    Args:
        where: the file or object that was read.
        problems: one line for each problem, each naming its key.
    """

    def __init__(self, where: str, problems: Sequence[str], *, fix: str | None = None) -> None:
        self.where = where
        self.problems = tuple(problems)
        lines = (f"  - {problem}" for problem in self.problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(f"{where}: {count}", more=lines, fix=fix)


class ImageError(InputError):
    """One image that cannot be used; ``path`` names it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def alone(self) -> ImageError:
        """Return it without what raised it, to be kept: that holds half-decoded pictures."""
        return ImageError(self.path, self.reason)


class UnknownName(AdapterBankError):
    """A name nobody knows, with its nearest neighbours.

    Args:
        kind: what was looked up (``"task"``, ``"alias"``, ``"method"``…).
        name: the name that was asked for.
        known: every valid name; the nearest are suggested.
        why: what became of the name, where that is known; said instead of the valid ones.
    """

    exit_code = 3

    def __init__(
        self,
        kind: str,
        name: str,
        known: Iterable[str] = (),
        *,
        why: str = "",
        fix: str | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(sorted(known))
        near = difflib.get_close_matches(name, self.known, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        if len(self.known) > 8:
            listed = f" {len(self.known)} known."
        elif self.known:
            listed = f" Known: {', '.join(self.known)}."
        else:
            listed = " None exist yet."
        more = f" {why}." if why else f"{hint}{listed}"
        super().__init__(f"Unknown {kind} {name!r}.{more}", fix=fix)


class IntegrityError(AdapterBankError):
    """Stored bytes differ from what was published; nothing was served from them."""

    exit_code = 4


class NotPulled(IntegrityError):
    """A registered version has no bytes here, as in a clone; they were not fetched, or deleted."""


class BackboneMismatch(IntegrityError):
    """An adapter meets a backbone other than the one it was trained on."""


class CanaryMismatch(IntegrityError):
    """The right bytes give other logits than they gave when they were published."""


class ConflictError(AdapterBankError):
    """A compare-and-swap lost: the record changed since it was read."""

    exit_code = 5
