"""The objects that DVC keeps of a bank: which there are, where, and their bytes.

DVC names an object by the MD5 of its content, and a folder by the MD5 of a list of its
files, which ``dvc.lock`` states.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Self

from dvc.dvcfile import load_file
from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.stage.loader import StageLoader
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize import modify_yaml
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked

from adapterbank.config.yaml import read_texts
from adapterbank.errors import AdapterBankError, ConfigError
from adapterbank.integrations.git import mend_conflict
from adapterbank.reading import read_document
from adapterbank.registry.manifest import md5_of
from adapterbank.text import is_conflicted

_LOCK: Final = "dvc.lock"
_MOST: Final = 1_000_000  # outputs of a bank
# DVC passes on what the libraries of its remotes raise, not all of which are OSErrors.
_REMOTE_ERRORS: Final = (
    ("aiohttp", "ClientError"),
    ("asyncssh", "Error"),
    ("azure.core.exceptions", "AzureError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("google.auth.exceptions", "GoogleAuthError"),
)


class DvcObjects:
    """What DVC keeps of one bank; a context manager.

    A bank that is no DVC repository has no objects, which is no error. ``dvc.lock`` is read once,
    and each list of files: they are long and asked about for every version.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._repo: Any = None
        if (root / ".dvc").is_dir():
            with _reported(root):
                self._repo = Repo(str(root))
        self._remote: Any = None
        if self._repo is not None and self._repo.config["core"].get("remote"):
            with _reported(root):
                self._remote = self._repo.cloud.get_remote_odb()
        self._outputs: dict[str, str] | None = None
        self._lists: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what DVC has opened."""
        if self._repo is not None:
            self._repo.close()

    @property
    def in_use(self) -> bool:
        """Whether the bank is a DVC repository."""
        return self._repo is not None

    @property
    def has_remote(self) -> bool:
        """Whether there is a default remote."""
        return self._remote is not None

    @property
    def has_near_remote(self) -> bool:
        """Whether there is a default remote and asking it costs little: a folder."""
        return self._remote is not None and self._remote.fs.protocol == "local"

    def locked(self, output: str) -> dict[str, str] | None:
        """Return the files of an output folder, as ``dvc.lock`` states them.

        Args:
            output: the folder, relative to the bank.

        Returns:
            the MD5 of each file by its name in the folder; None where ``dvc.lock`` does not have
            the output, or the list of its files is neither in the cache nor in the remote.

        Raises:
            AdapterBankError: ``dvc.lock`` cannot be read, or the remote did not answer.
        """
        md5 = self._locked_md5(output)
        if md5 is None:
            return None
        if md5 not in self._lists:
            data = self.read(md5)
            if data is None:
                return None
            self._lists[md5] = _parse_list(data, md5)
        return self._lists[md5]

    def has_list(self, output: str) -> bool:
        """Whether ``dvc.lock`` has an output, readable or not."""
        return self._locked_md5(output) is not None

    def in_cache(self, md5: str) -> bool:
        """Whether the cache has an object."""
        return self._repo is not None and self._has(self._repo.cache.local, md5)

    def in_remote(self, md5: str) -> bool:
        """Whether the default remote has an object."""
        return self._remote is not None and self._has(self._remote, md5)

    def absent_in_remote(self, md5s: Iterable[str]) -> frozenset[str]:
        """Return which objects the default remote lacks; asks about many at a time.

        Raises:
            AdapterBankError: the remote did not answer.
        """
        wanted = sorted(set(md5s))
        with _reported(self._root):
            return frozenset(wanted).difference(self._remote.list_oids_exists(wanted))

    def download_lists(self, outputs: Iterable[str]) -> None:
        """Bring the lists of files of output folders into the cache, where ``locked`` looks first.

        Raises:
            AdapterBankError: as for :meth:`download`, or ``dvc.lock`` cannot be read.
        """
        md5s = (self._locked_md5(output) for output in outputs)
        self.download(md5 for md5 in md5s if md5 is not None)

    def download(self, md5s: Iterable[str]) -> None:
        """Have the cache hold objects, those it lacks from the default remote, many at a time.

        What the remote does not have, or has damaged, is not in the cache afterwards either: DVC
        believes its cache, so what is wrong there would come back for ever.

        Raises:
            AdapterBankError: the remote did not answer; what came before is kept.
        """
        if self._remote is None:
            return
        cache, failed = self._repo.cache.local, dict[str, BaseException]()
        wanted = [md5 for md5 in sorted(set(md5s)) if not self._is_cached(md5)]
        if not wanted:
            return
        with _reported(self._root):
            cache.add(
                [self._remote.oid_to_path(md5) for md5 in wanted], self._remote.fs, wanted,
                verify=True, on_error=failed.__setitem__,
            )  # fmt: skip
        lost = [error for error in failed.values() if not isinstance(error, FileNotFoundError)]
        if lost:
            raise AdapterBankError(
                f"the DVC remote gave {len(wanted) - len(failed):,} of {len(wanted):,} objects:"
                f" {lost[0]}",
                fix="repeat the command: what came is kept",
            ) from lost[0]

    def keep(self, stage: str, output: str, folders: Iterable[Path], *, anew: bool = False) -> None:
        """Put folders of an output into the cache and into ``dvc.lock``, where all others stay.

        Nothing else in ``dvc.lock`` changes, so a stage whose inputs have changed will run, and
        neither the pipeline nor what its stages read is needed.

        Args:
            stage: the one that has the output, such as ``register@dtd``.
            output: a folder, relative to the bank.
            folders: in it, or itself.
            anew: the list of its files is lost; make one of these folders alone.

        Raises:
            AdapterBankError: the list cannot be had, DVC is busy, or the disk refused.
        """
        if self._repo is None:
            raise AdapterBankError(
                f"{self._root} is not under DVC",
                fix=f"adapterbank init {shlex.quote(str(self._root))}",
            )
        path = self._root / _LOCK
        name, _, task = stage.partition("@")
        command = f"adapterbank stage {name} {task}".strip()
        with _reported(self._root), lock_repo(self._repo), modify_yaml(str(path)) as content:
            content.setdefault("schema", "2.0")
            entry = content.setdefault("stages", {}).setdefault(stage, {"cmd": command})
            pipeline = load_file(self._repo, str(self._root / "dvc.yaml"))
            bare = {"cmd": command, "outs": [{output: {"persist": True}}]}
            made = StageLoader.load_stage(pipeline, stage, bare, {} if anew else dict(entry))
            for folder in folders:
                made.outs[0].add(str(folder), relink=False)  # the registry's own is not touched
            (kept,) = to_lockfile(made)[stage]["outs"]
            others = [out for out in entry.get("outs", ()) if out["path"] != output]
            entry["outs"] = sorted([*others, dict(kept)], key=itemgetter("path"))
        self._outputs = None

    def upload(self, outputs: Iterable[str]) -> None:
        """Copy all files of output folders, then their lists, from the cache to the default remote.

        In this order, because DVC takes a list that is in the remote for complete; but what DVC
        believes is there is not believed here, for somebody may have pushed a part.

        Raises:
            AdapterBankError: the cache lacks one that the remote lacks too, or the remote refused.
        """
        kept = [output for output in outputs if self.locked(output) is not None]
        self._upload(md5 for output in kept for md5 in (self.locked(output) or {}).values())
        self._upload(md5 for output in kept if (md5 := self._locked_md5(output)))

    def _upload(self, md5s: Iterable[str]) -> None:
        cache, failed = self._repo.cache.local, dict[str, BaseException]()
        absent = sorted(self.absent_in_remote(md5s))
        if not absent:
            return
        with _reported(self._root):
            self._remote.add(
                [cache.oid_to_path(md5) for md5 in absent], cache.fs, absent,
                check_exists=False, on_error=failed.__setitem__,
            )  # fmt: skip
        for md5, error in failed.items():
            if isinstance(error, FileNotFoundError):
                raise AdapterBankError(
                    f"neither the DVC cache nor the remote has the object {md5}",
                    fix="dvc status --cloud, which names its output",
                ) from error
            raise AdapterBankError(
                f"the DVC remote took {len(absent) - len(failed):,} of {len(absent):,} objects:"
                f" {error}",
                fix="repeat the command: what came is kept",
            ) from error

    def read(self, md5: str) -> bytes | None:
        """Return an object from the cache or else from the default remote, its MD5 checked.

        Returns:
            None where neither has it whole; a damaged object counts as none.

        Raises:
            AdapterBankError: the remote did not answer.
        """
        stores = [] if self._repo is None else [self._repo.cache.local, self._remote]
        found = (self._read(store, md5) for store in stores if store is not None)
        return next((data for data in found if data is not None), None)

    def _is_cached(self, md5: str) -> bool:
        """Whether the cache has an object whole; a damaged one is deleted from it."""
        if self._read(self._repo.cache.local, md5) is not None:
            return True
        Path(self._repo.cache.local.oid_to_path(md5)).unlink(missing_ok=True)
        return False

    def _read(self, store: Any, md5: str) -> bytes | None:  # noqa: ANN401  # DVC has no types
        with _reported(self._root):
            try:
                data = bytes(store.fs.cat_file(store.oid_to_path(md5)))
            except FileNotFoundError:
                return None
        return data if md5_of(data) == md5.removesuffix(".dir") else None

    def _locked_md5(self, output: str) -> str | None:
        if self._outputs is None:
            self._outputs = locked_outputs(self._root / _LOCK)
        return self._outputs.get(output)

    def _has(self, store: Any, md5: str) -> bool:  # noqa: ANN401  # DVC has no types
        with _reported(self._root):
            return bool(store.fs.exists(store.oid_to_path(md5)))


def locked_outputs(path: Path) -> dict[str, str]:
    """Return the MD5 of each output that ``dvc.lock`` has, by the path of the output."""
    try:
        data = path.read_bytes()
        if is_conflicted(data):
            raise AdapterBankError(
                f"{path} has a merge conflict", fix=mend_conflict(path.parent, _LOCK)
            )
        content = read_texts(data, str(path)) or {}
        stages = (content.get("stages") or {}).values()
        # An alias makes many stages of a few letters.
        outputs = list(islice((out for stage in stages for out in stage.get("outs", ())), _MOST))
        return {str(out["path"]): str(out["md5"]) for out in outputs if out.get("md5")}
    except FileNotFoundError:
        return {}
    except (ConfigError, AttributeError, KeyError, TypeError) as error:
        raise AdapterBankError(
            f"{path} cannot be read: {error}", fix=f"git checkout HEAD -- {_LOCK}"
        ) from error


@checked(frozen=True, config=ConfigDict(strict=True))
class _Entry:
    relpath: str
    md5: str


def _parse_list(data: bytes, md5: str) -> dict[str, str]:
    entries = read_document(data, list[_Entry], f"the DVC object {md5}, a list of files,")
    return {entry.relpath: entry.md5 for entry in entries}


@contextmanager
def _reported(root: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except _expected() as error:
        raise AdapterBankError(f"DVC in {root}: {error}") from error


def _expected() -> tuple[type[Exception], ...]:
    """What DVC and the library of the remote that is in use raise when something does not work."""
    modules = ((sys.modules.get(module), name) for module, name in _REMOTE_ERRORS)
    theirs = (getattr(module, name, DvcException) for module, name in modules if module)
    return (DvcException, OSError, *theirs)
