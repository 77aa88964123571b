"""Where a search keeps what must survive its processes: a folder here, or one all nodes reach.

Whole small files under relative names, replaced in one step, and no more: nothing that is read
from here can run code, so a storage shared with others is no way into this machine.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from adapterbank import durable
from adapterbank.errors import AdapterBankError, ConflictError, InputError, IntegrityError

_LOCK = ".lock"
_LIMIT = 1 << 32  # bytes of one file
_FIX = "use a folder, file://… or s3://bucket/prefix"


class Storage:
    """A folder on a local or shared disk, or a bucket.

    Args:
        uri: a path, ``file://…``, or what :mod:`pyarrow.fs` opens, such as ``s3://bucket/prefix``
            (credentials and endpoint as the AWS tools read them from the environment).

    Raises:
        InputError: no file system of that name, or none at all.
    """

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri)
        parts = urlsplit(self.uri)
        self._remote: Any = None
        if parts.scheme in {"", "file"}:
            if parts.scheme and parts.netloc not in {"", "localhost"}:
                raise InputError(f"storage {self.uri}: names the host {parts.netloc}", fix=_FIX)
            path = unquote(parts.path) if parts.scheme else self.uri
            if not path:
                raise InputError(f"storage {self.uri}: names no folder", fix=_FIX)
            self._root = Path(path).resolve()
            self.uri = str(self._root)  # a worker stands in another folder
            return
        from pyarrow import fs  # noqa: PLC0415  # a local search needs none of it

        try:
            self._remote, self._prefix = fs.FileSystem.from_uri(self.uri)
        except (ValueError, OSError, NotImplementedError) as error:
            raise InputError(f"storage {self.uri}: {error}", fix=_FIX) from error
        if not self._prefix:
            raise InputError(f"storage {self.uri}: names no bucket", fix=_FIX)

    def inside(self, name: str) -> Storage:
        """The folder of that name in this one."""
        if self._remote is None:
            return Storage(self._root / name)
        parts = urlsplit(self.uri)  # a bucket's options stand behind its path
        return Storage(urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}")))

    def read(self, name: str) -> bytes | None:
        """Read a file; None if there is none.

        Raises:
            AdapterBankError: the storage does not answer.
            IntegrityError: what is there is no regular file.
        """
        if self._remote is None:
            try:
                return durable.read_file(self._root / name, limit=_LIMIT)
            except FileNotFoundError:
                return None
        with self._reported(name, "read"):
            try:
                with self._remote.open_input_stream(f"{self._prefix}/{name}") as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Give a file new content at once.

        Raises:
            AdapterBankError: the storage is full, read-only or does not answer.
        """
        if self._remote is None:
            path = self._root / name
            with durable.writable(self._root):
                durable.make_directory(path.parent)
                durable.replace_file(path, data)
            return
        with (  # an object appears when its stream is closed, as a whole
            self._reported(name, "written"),
            self._remote.open_output_stream(f"{self._prefix}/{name}") as stream,
        ):
            stream.write(data)

    def names(self, folder: str) -> tuple[str, ...]:
        """Names of the files in a folder of it, sorted; leftovers of killed writers are none.

        Raises:
            AdapterBankError: the storage does not answer.
        """
        if self._remote is None:
            path = self._root / folder
            names = [file.name for file in path.iterdir()] if path.is_dir() else []
        else:
            from pyarrow import fs  # noqa: PLC0415

            where = fs.FileSelector(f"{self._prefix}/{folder}", allow_not_found=True)
            with self._reported(folder, "listed"):
                names = [file.base_name for file in self._remote.get_file_info(where)]
        return tuple(sorted(name for name in names if not name.startswith(durable.TEMPORARY)))

    def delete(self, name: str) -> None:
        """Delete a file, or a folder with all in it; no error if there is none.

        Raises:
            AdapterBankError: the storage is read-only or does not answer.
        """
        if self._remote is None:
            path = self._root / name
            with durable.writable(self._root):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            return
        from pyarrow import fs  # noqa: PLC0415

        where = f"{self._prefix}/{name}"
        with self._reported(name, "deleted"):
            kind = self._remote.get_file_info(where).type
            if kind == fs.FileType.Directory:
                self._remote.delete_dir(where)
            elif kind != fs.FileType.NotFound:
                self._remote.delete_file(where)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other drivers from the same folder; a bucket has no lock, and none is taken there.

        Raises:
            ConflictError: a search runs there.
        """
        if self._remote is not None:
            yield
            return
        with ExitStack() as stack:
            try:
                with durable.writable(self._root):
                    durable.make_directory(self._root)
                    stack.enter_context(durable.locked(self._root / _LOCK, timeout_s=0.0))
            except ConflictError as error:
                raise ConflictError(
                    f"a search runs in {self.uri}", fix="wait for it, or end it, then repeat this"
                ) from error
            yield

    def check(self) -> None:
        """Write, read and so prove that a search can keep its state here.

        Raises:
            InputError: it cannot.
            IntegrityError: it takes what it does not give back.
        """
        probe = f"{durable.TEMPORARY}probe-{uuid.uuid4().hex[:12]}"  # two may ask at once
        try:
            self.write(probe, b"a search keeps its state here\n")
            kept = self.read(probe)
            self.delete(probe)
        except (AdapterBankError, OSError) as error:
            message = error.message if isinstance(error, AdapterBankError) else str(error)
            raise InputError(
                f"the storage {self.uri} cannot be used: {message}",
                fix="name one that can be written with --storage",
            ) from error
        if kept is None:
            raise IntegrityError(f"the storage {self.uri} does not give back what is written to it")

    @contextmanager
    def _reported(self, name: str, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise AdapterBankError(
                f"storage {self.uri}/{name} cannot be {what}: {error}"
            ) from error
