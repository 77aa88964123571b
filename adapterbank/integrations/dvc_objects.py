"""The objects that DVC keeps of a bank: which there are, where, and their bytes.

DVC names an object by the MD5 of its content, and a folder by the MD5 of a list of its
files, which ``dvc.lock`` states.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo

from adapterbank.errors import AdapterBankError

__all__ = ["DvcObjects"]

_LOCK: Final = "dvc.lock"


class DvcObjects:
    """What DVC keeps of one bank; a context manager.

    A bank that is no DVC repository has no objects, which is no error.
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

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what DVC has opened."""
        self.close()

    def close(self) -> None:
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
        md5 = self._output_md5(output)
        if md5 is None:
            return None
        data = self.read(md5)
        if data is None:
            return None
        try:
            return {str(item["relpath"]): str(item["md5"]) for item in json.loads(data)}
        except (ValueError, TypeError, KeyError) as error:
            raise AdapterBankError(f"the DVC object {md5} is no list of files") from error

    def in_cache(self, md5: str) -> bool:
        """Whether the cache has an object."""
        return self._repo is not None and self._has(self._repo.cache.local, md5)

    def in_remote(self, md5: str) -> bool:
        """Whether the default remote has an object."""
        return self._remote is not None and self._has(self._remote, md5)

    def upload(self, md5: str) -> None:
        """Copy an object from the cache to the default remote, whatever DVC believes is there.

        Raises:
            AdapterBankError: the cache lacks it, or the remote refused.
        """
        cache = self._repo.cache.local
        try:
            with _reported(self._root):
                self._remote.add(cache.oid_to_path(md5), cache.fs, md5)
        except FileNotFoundError as error:
            raise AdapterBankError(
                f"neither the DVC cache nor the remote has the object {md5}",
                fix="dvc status --cloud, which names its output",
            ) from error

    def read(self, md5: str) -> bytes | None:
        """Return an object from the cache or else from the default remote, its MD5 checked.

        Returns:
            None where neither has it whole; a damaged object counts as none.

        Raises:
            AdapterBankError: the remote did not answer.
        """
        stores = [] if self._repo is None else [self._repo.cache.local, self._remote]
        for store in stores:
            if store is None:
                continue
            with _reported(self._root):
                try:
                    data = bytes(store.fs.cat_file(store.oid_to_path(md5)))
                except FileNotFoundError:
                    continue
            found = hashlib.md5(data, usedforsecurity=False).hexdigest()
            if found == md5.removesuffix(".dir"):
                return data
        return None

    def _has(self, store: Any, md5: str) -> bool:  # noqa: ANN401  # DVC has no types
        with _reported(self._root):
            return bool(store.fs.exists(store.oid_to_path(md5)))

    def _output_md5(self, output: str) -> str | None:
        path = self._root / _LOCK
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise AdapterBankError(
                f"{path} cannot be read: {error}", fix=f"git checkout {_LOCK}"
            ) from error
        stages = content.get("stages") if isinstance(content, dict) else None
        for stage in (stages or {}).values():
            for out in stage.get("outs", ()):
                if out.get("path") == output:
                    return str(out["md5"]) if out.get("md5") else None
        return None


@contextmanager
def _reported(root: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (DvcException, OSError) as error:
        raise AdapterBankError(f"DVC in {root}: {error}") from error
