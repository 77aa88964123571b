"""Durable writes, one lock and careful reads: the only code that writes what must not be lost.

Every write goes through the few functions here, each of which is durable when it returns, so a
process killed between any two of them leaves the old state, the new state or a leftover whose
name starts with ``.tmp-``, and never a half-written file under a real name.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from adapterbank.errors import AdapterBankError, ConflictError, IntegrityError

TEMPORARY = ".tmp-"
_OBJECT = re.compile(r"/(?:files/md5/)?[0-9a-f]{2}/[0-9a-f]{30}\Z")  # of DVC 3, or earlier


def read_file(path: Path, *, limit: int) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    A symbolic link is followed only to an object of a DVC cache (``cache.type symlink``), whose
    content has the MD5 that it is named by.

    Raises:
        FileNotFoundError: there is no such file; only the caller knows what that means.
        IntegrityError: it is another link, not a regular file, too large, unreadable, or an
            object whose content is not what it is named by.
    """
    kept = linked_object(path)
    data = _read_regular(path if kept is None else kept, limit)
    if kept is not None:
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if md5 != kept.parent.name + kept.name:
            raise IntegrityError(f"{path} links to {kept}, whose content has the MD5 {md5}")
    return data


def linked_object(path: Path) -> Path | None:
    """Return the object of a DVC cache that a path links to; None where it is no link.

    Raises:
        IntegrityError: it is a link to anything else.
    """
    try:
        target = path.parent / path.readlink()
    except OSError:
        return None  # no link; whoever opens it learns more
    if not _OBJECT.search(str(target)):
        raise IntegrityError(f"{path} is a symbolic link")
    return target


def _read_regular(path: Path, limit: int) -> bytes:
    try:
        # O_NONBLOCK: opening a named pipe that somebody put there must not hang.
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        linked = error.errno == errno.ELOOP
        reason = "is a symbolic link" if linked else f"cannot be read: {error.strerror}"
        raise IntegrityError(f"{path} {reason}") from error
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        os.close(file)  # before a stream is made of it: a folder cannot be one
        raise IntegrityError(f"{path} is not a regular file")
    with os.fdopen(file, "rb") as stream:
        if status.st_size > limit:
            raise IntegrityError(
                f"{path} has {status.st_size:,} bytes, more than the {limit:,} allowed"
            )
        try:
            # Not `limit`: Python asks for all of that memory before it reads.
            data = stream.read(status.st_size + 1)
        except OSError as error:
            raise IntegrityError(f"{path} cannot be read: {error.strerror}") from error
        if len(data) > status.st_size:
            raise IntegrityError(f"{path} grew while it was read")
        return data


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and flush it to the disk; its name is durable once the folder is.

    Whoever the user's umask lets read or write other files may do so with this one.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with os.fdopen(file, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(file)


def sync_directory(path: Path) -> None:
    """Make the names in a folder durable."""
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def make_directory(path: Path) -> None:
    """Create a folder and its parents, each durable in the one above."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def temporary_beside(path: Path) -> Path:
    """Return a fresh temporary name in the same folder, which tells what it was meant for."""
    return path.with_name(f"{TEMPORARY}{path.name}-{uuid.uuid4().hex[:12]}")


def replace_file(path: Path, data: bytes, *, alone: bool = False) -> None:
    """Give ``path`` new content at once: a reader sees all of the old or all of the new.

    Args:
        path: the file.
        data: its new content.
        alone: the caller holds a lock that all writers of the file hold. The temporary name is
            then always the same, so what a killed writer left is replaced, and found without
            looking through a folder that may have thousands of files.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}") if alone else temporary_beside(path)
    if alone:
        temporary.unlink(missing_ok=True)
    try:
        write_file(temporary, data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # a full disk should get its space back
        raise
    sync_directory(path.parent)


def replace_directory(path: Path, files: Mapping[str, bytes]) -> None:
    """Publish a folder of files under ``path``, in place of what may be there.

    Where there is nothing, one rename publishes it. What is there is renamed first, because a
    folder cannot be replaced by another at once. A process killed between the two renames leaves
    no ``path``, and old and new whole under temporary names, which the next call for ``path``
    deletes. So nothing may be replaced that cannot be made again: a damaged version, or what a
    stage writes and then runs again for.
    """
    temporary = temporary_beside(path)
    try:
        temporary.mkdir()
        for name in sorted(files):
            write_file(temporary / name, files[name])
        sync_directory(temporary)
        if path.exists() or path.is_symlink():
            path.rename(temporary_beside(path))
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # a full disk should get its space back
        raise
    sync_directory(path.parent)
    remove_temporaries(path.parent, f"{path.name}-")


def remove_temporaries(directory: Path, name: str = "") -> None:
    """Delete what killed writers left behind (of ``name`` only, if one is given).

    To be called under the lock all writers hold: then every temporary name is a dead one's.
    """
    for entry in os.listdir(directory):  # noqa: PTH208  # a third of the cost of registering
        if not entry.startswith(f"{TEMPORARY}{name}"):
            continue
        path = directory / entry
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, timeout_s: float = 60.0) -> Iterator[None]:
    """Hold the one lock of all writers, threads and processes alike.

    The kernel drops it when its holder dies, so no lock is ever stale. Each call opens the file
    anew because ``flock`` belongs to an open file: two threads then exclude each other too.

    Raises:
        ConflictError: another writer held it for ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = 0.001
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if _try_lock(file, path):
                yield
                return
        finally:
            # Not left to close(): a process forked meanwhile shares the lock and would keep it.
            fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)
        if time.monotonic() > deadline:
            raise ConflictError(
                f"{path} has been held by another process for {timeout_s:.0f} s",
                fix="wait for it, or end it if it is stopped, then repeat the command",
            )
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.02)


def _try_lock(file: int, path: Path) -> bool:
    """Take the lock if it is free; a lock file that was replaced meanwhile excludes nobody."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        opened, named = os.fstat(file), path.stat()
    except FileNotFoundError:
        return False
    return (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)


@contextmanager
def writable(root: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an error that says so.

    Raises:
        AdapterBankError: the operating system refused a write.
    """
    try:
        yield
    except OSError as error:
        where = error.filename or root
        raise AdapterBankError(
            f"Cannot write {where}: {error.strerror or error}; what was published before is intact",
            fix="free some space or mend the permissions, then repeat the command",
        ) from error
