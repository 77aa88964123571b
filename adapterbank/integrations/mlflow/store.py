"""Where MLflow keeps a bank's runs and model versions: ``mlflow.db`` and ``mlartifacts/``.

A fresh SQLite file that several processes open at once fails in all of them and stays half
migrated (MLflow 3.17), so it is made under a lock, under a temporary name, and renamed.

The files of runs have an address that moves with the bank (:mod:`.run_files`). With a server
(``MLFLOW_TRACKING_URI``) they are the server's business.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy.exc import SQLAlchemyError

from adapterbank.durable import locked, writable
from adapterbank.errors import AdapterBankError, FetchError, InputError
from adapterbank.integrations.mlflow.run_files import ARTIFACTS, ROOT, files_address

DATABASE: Final = "mlflow.db"
# What SQLite and MLflow say of a file that no retry makes whole.
_DAMAGED: Final = ("DatabaseError", "Could not decode", "no such table", "unexpected state")
# MLflow prints the traceback of each error that it passes on, which is ours to tell.
logging.getLogger("mlflow.store.db.utils").addFilter(lambda record: not record.exc_info)
# What a database's driver, a module, is called where it is installed from.
_PACKAGES: Final = {
    "MySQLdb": "mysqlclient",
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
}

_UNADDRESSABLE: Final = re.compile(r"\?|%[0-9A-Fa-f]{2}")
_PASSWORD: Final = re.compile(r"(://[^:/@]*:)[^@]*@")
_PAGE: Final = 50_000  # MLflow's most
_ANOTHER: Final = "move {} away, then: adapterbank sync, which makes another; its runs are lost"
# Those of the libraries, and what a damaged row or table makes of MLflow's code and of Python's.
_UNREADABLE: Final = (MlflowException, SQLAlchemyError, sqlite3.Error, ArithmeticError,
                      AttributeError, LookupError, TypeError, ValueError)  # fmt: skip


def tracking_uri(root: Path) -> str:
    """Return the address of the tracking store, without touching it.

    ``MLFLOW_TRACKING_URI`` wins; else it is the bank's own SQLite file, as an absolute address,
    because MLflow's default depends on the current folder.

    Raises:
        InputError: the bank's path has characters that MLflow's addresses cannot carry.
    """
    return _elsewhere(root) or _sqlite_uri(root.resolve() / DATABASE)


def shown_uri(root: Path) -> str:
    """Return the address of the tracking store without the password that it may have."""
    return _PASSWORD.sub(r"\1***@", tracking_uri(root))


def artifact_location(root: Path, experiment: str) -> str | None:
    """Return where a new experiment's artifacts go; None leaves the choice to a server."""
    if _elsewhere(root):
        return None
    return files_address(experiment)


def ensure_store(root: Path) -> str:
    """Make the bank's tracking store if it does not exist, and return its address.

    Any number of threads and processes may call it at once. A store named by
    ``MLFLOW_TRACKING_URI`` is taken as it is.

    Raises:
        AdapterBankError: the folder cannot be written, or the file is not a tracking store.
        ConflictError: another process held the lock for a minute.
    """
    if _elsewhere(root):
        return tracking_uri(root)
    database = root.resolve() / DATABASE
    with writable(root), store_lock(root):
        if not database.exists():
            _create(database)
        elif not _is_database(database):  # MLflow would fill an empty file with tables
            raise AdapterBankError(
                f"{database} is not a usable MLflow store",
                fix=_ANOTHER.format(database),
            )
    return _sqlite_uri(database)


def open_client(root: Path) -> MlflowClient:
    """Return a client of the bank's tracking store, made if necessary.

    It is a client of its own: nothing global of MLflow (active run, tracking URI) is touched.
    """
    return MlflowClient(tracking_uri=ensure_store(root))


def store_exists(root: Path) -> bool:
    """Return whether there is a store to read; of a server only reading it can tell."""
    return bool(_elsewhere(root)) or (root / DATABASE).exists()


def is_displaced(root: Path, address: str) -> bool:
    """Return whether files of runs lie in a bank that this one was moved or copied from.

    Stores made before :mod:`.run_files` have absolute addresses, which MLflow never changes. What
    the addresses of another store mean is its owner's business.
    """
    if _elsewhere(root) or not address.startswith("file:"):
        return False
    place, folder, _ = address.partition(f"/{ARTIFACTS}/")
    return bool(folder) and place != root.resolve().as_uri()


def displaced_experiments(root: Path) -> tuple[Experiment, ...]:
    """Return the experiments whose files lie in a bank that this one was moved or copied from.

    Those that were set aside are not among them.

    Raises:
        AdapterBankError: the store did not answer.
    """
    if _elsewhere(root) or not store_exists(root):
        return ()
    with reported(root):
        experiments = open_client(root).search_experiments(max_results=_PAGE)
        return tuple(
            experiment
            for experiment in experiments
            if is_displaced(root, experiment.artifact_location)
            and files_address(experiment.name).removeprefix(ROOT)
            == experiment.artifact_location.rpartition("/")[2]
        )


def set_aside(root: Path, experiment: Experiment) -> str:
    """Give an experiment another name, so that the next run makes one whose files are here.

    Its runs stay, with parameters and metrics; their files lie in ``mlartifacts/``, where MLflow
    does not look.

    Returns:
        the new name.
    """
    name = f"{experiment.name} (before the bank was moved, {experiment.experiment_id})"
    with reported(root):
        open_client(root).rename_experiment(experiment.experiment_id, name)
    return name


def store_lock(root: Path) -> AbstractContextManager[None]:
    """Hold the bank's tracking lock: read-then-write steps on the store exclude one another."""
    return locked(root.resolve() / f"{DATABASE}.lock")


@contextmanager
def reported(root: Path) -> Iterator[None]:
    """Turn MLflow's and the database's exceptions into one error that says which store failed.

    Raises:
        AdapterBankError: the store refused or did not answer.
        FetchError: what its address needs is not installed.
    """
    try:
        yield
    except ImportError as error:
        module = (error.name or str(error)).partition(".")[0]
        package = _PACKAGES.get(module, module)
        raise FetchError(
            f"MLflow store {shown_uri(root)}: its driver {module!r} is not installed",
            fix=f"{shlex.quote(sys.executable)} -m pip install {shlex.quote(package)}",
        ) from error
    except _UNREADABLE as error:
        uri, library = shown_uri(root), isinstance(error, (MlflowException, SQLAlchemyError))
        reason = next(iter(str(error).strip().splitlines()), "")
        reason = reason if library else f"{type(error).__name__}: {reason}"
        damaged = not library or any(words in reason for words in _DAMAGED)
        fix = _ANOTHER.format(DATABASE) if damaged else None
        if _elsewhere(root):
            fix = "check MLFLOW_TRACKING_URI and that the server runs"
        if "out-of-date database schema" in str(error):
            fix = f"mlflow db upgrade {uri}"
        raise AdapterBankError(f"MLflow store {uri}: {reason}", fix=fix) from error


def is_elsewhere(root: Path) -> bool:
    """Return whether runs are kept in another store than the bank's own."""
    return bool(_elsewhere(root))


def _elsewhere(root: Path) -> str:
    """Return the user's own store, or "" where it is the bank's file."""
    chosen = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    own = chosen.removeprefix("sqlite:///") == str(root.resolve() / DATABASE)
    return "" if own else chosen


def _sqlite_uri(database: Path) -> str:
    if _UNADDRESSABLE.search(str(database)):
        # Quoting does not help: SQLAlchemy decodes the address, MLflow's own mkdir does not.
        raise InputError(
            f"MLflow cannot address {database}: its path has a '?' or looks percent-encoded",
            fix="rename the folder, or keep runs elsewhere by setting MLFLOW_TRACKING_URI",
        )
    return f"sqlite:///{database}"


def _create(database: Path) -> None:
    """Migrate a new file under a temporary name and give it its own; the lock is held."""
    fresh = database.with_name(f"{database.name}.init")
    for suffix in ("", "-wal", "-shm", "-journal"):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    # Asks the operating system first: MLflow retries a folder it cannot write for 100 seconds.
    fresh.touch(exist_ok=False)
    with _hushed("alembic"), reported(database.parent):
        store = SqlAlchemyStore(_sqlite_uri(fresh), ROOT)  # type: ignore[no-untyped-call]
        store.engine.dispose()
    with closing(sqlite3.connect(fresh)) as connection:
        # Kept in the file. Readers no longer wait for writers, and writers queue for 20 seconds.
        connection.execute("PRAGMA journal_mode=WAL")
    fresh.replace(database)


def _is_database(path: Path) -> bool:
    """Whether it is SQLite's, not empty, and its tables can be named.

    SQLite is asked: whoever else opens and closes the file drops the locks that this process has
    on it, and another process may then write into the middle of a transaction.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return False
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("SELECT name FROM sqlite_master").fetchall()
    except sqlite3.OperationalError:
        return True  # busy, or unreadable, of which MLflow tells
    except (sqlite3.DatabaseError, ValueError):  # ValueError: a message that is no UTF-8
        return False
    return True


@contextmanager
def _hushed(name: str) -> Iterator[None]:
    """Keep a library's logger below warnings silent for a moment."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
